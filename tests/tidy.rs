//! The house is held to its plan: floors, sizes, nothing left open (docs/architecture.md).

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::spanned::Spanned;
use syn::visit::Visit;

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;

/// A room imports only from rooms on floors below its own.
const FLOORS: [(&str, u8); 19] = [
    ("main", 8),
    ("cli", 8),
    ("server", 7),
    ("gateway", 6),
    ("registry", 5),
    ("identity", 4),
    ("store", 4),
    ("cache", 4),
    ("upstream", 4),
    ("events", 4),
    ("files", 3),
    ("net", 3),
    ("telemetry", 3),
    ("config", 2),
    ("access", 1),
    ("oci", 0),
    ("docker", 0),
    // The list of rooms itself.
    ("lib", 9),
    ("dockgate", 9),
];

fn floor(room: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == room).map(|(_, floor)| *floor)
}

struct Source {
    path: PathBuf,
    room: String,
    text: String,
    syntax: syn::File,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    rust_files(&root().join(folder), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let inside = path.strip_prefix(root().join(folder)).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        Source { room, text, syntax, path }
    };
    let sources: Vec<Source> = paths.into_iter().map(read).collect();
    assert!(sources.len() > 3, "found no sources in {folder}");
    sources
}

/// Every path that begins at the crate's root, as the rooms it enters.
#[derive(Default)]
struct Imports(Vec<String>);

impl Imports {
    fn tree(&mut self, tree: &syn::UseTree, depth: usize) {
        match tree {
            syn::UseTree::Path(path) if depth == 0 && (path.ident == "crate" || path.ident == "dockgate") => {
                self.tree(&path.tree, 1);
            }
            syn::UseTree::Path(_) if depth == 0 => {}
            syn::UseTree::Path(path) => self.0.push(path.ident.to_string()),
            syn::UseTree::Name(name) if depth == 1 => self.0.push(name.ident.to_string()),
            syn::UseTree::Rename(name) if depth == 1 => self.0.push(name.ident.to_string()),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(item, depth)),
            _ => {}
        }
    }

    /// Every `crate::room` among the words of a macro.
    fn words(&mut self, tokens: proc_macro2::TokenStream) {
        let mut before = [const { String::new() }; 3];
        for token in tokens {
            if let proc_macro2::TokenTree::Group(group) = &token {
                self.words(group.stream());
            }
            let word = token.to_string();
            if matches!(&before, [root, a, b] if (root == "crate" || root == "dockgate") && a == ":" && b == ":") {
                self.0.push(word.clone());
            }
            before.rotate_left(1);
            before[2] = word;
        }
    }
}

impl<'a> Visit<'a> for Imports {
    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        self.tree(&item.tree, 0);
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        let mut segments = path.segments.iter();
        let first = segments.next().map(|segment| segment.ident.to_string());
        if let (Some("crate" | "dockgate"), Some(room)) = (first.as_deref(), segments.next()) {
            self.0.push(room.ident.to_string());
        }
        syn::visit::visit_path(self, path);
    }

    /// What stands in a macro is no syntax yet, so its words are looked at.
    fn visit_macro(&mut self, invoked: &'a syn::Macro) {
        self.words(invoked.tokens.clone());
        syn::visit::visit_macro(self, invoked);
    }
}

#[test]
fn a_room_imports_only_from_floors_below() {
    let mut wrong = Vec::new();
    let mut seen = BTreeMap::<String, usize>::new();
    for source in sources("src").iter().filter(|source| source.room != "lib") {
        let here = floor(&source.room).unwrap_or_else(|| panic!("the room {} has no floor", source.room));
        let mut imports = Imports::default();
        imports.visit_file(&source.syntax);
        for room in imports.0.iter().filter(|room| **room != source.room) {
            *seen.entry(room.clone()).or_default() += 1;
            match floor(room) {
                Some(there) if there < here => {}
                Some(9) | Some(8) if source.room == "main" || source.room == "cli" => {}
                other => wrong.push(format!("{}: floor {here} imports {room} ({other:?})", source.path.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.len() > 5, "imports were not read: {seen:?}");
}

/// Where a path leads that goes up twice depends on how deep a file lies; `crate::room` says it, and is checked.
#[test]
fn paths_go_up_one_floor_at_a_time() {
    let twice = concat!("super::", "super");
    let wrong: Vec<String> = sources("src")
        .iter()
        .filter(|source| source.text.contains(twice))
        .map(|source| format!("{}: {twice}", source.path.display()))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn imports_in_macros_are_seen() {
    let file: syn::File = syn::parse_quote! {
        macro_rules! of { ($room:ident) => { use crate::store::Store; fn f() { dockgate::oci::Digest::parse() } } }
        fn g() { println!("{}", crate::registry::NAME) }
    };
    let mut imports = Imports::default();
    imports.visit_file(&file);
    assert_eq!(imports.0, ["store", "oci", "registry"]);
}

struct Functions<'a> {
    path: &'a Path,
    long: Vec<String>,
    count: usize,
}

impl Functions<'_> {
    fn measure(&mut self, name: &syn::Ident, span: proc_macro2::Span) {
        let lines = span.end().line - span.start().line + 1;
        self.count += 1;
        if lines > FUNCTION_LINES_MAX {
            self.long.push(format!("{}: {name} has {lines} lines", self.path.display()));
        }
    }
}

impl<'a> Visit<'a> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'a syn::ItemFn) {
        self.measure(&function.sig.ident, function.block.span());
        syn::visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'a syn::ImplItemFn) {
        self.measure(&function.sig.ident, function.block.span());
        syn::visit::visit_impl_item_fn(self, function);
    }
}

#[test]
fn functions_and_files_are_short() {
    let (mut long, mut count) = (Vec::new(), 0);
    for source in sources("src").iter().chain(&sources("tests")).chain(&sources("benches")) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{} has {lines} lines", source.path.display()));
        }
        let mut functions = Functions { path: &source.path, long: Vec::new(), count: 0 };
        functions.visit_file(&source.syntax);
        long.append(&mut functions.long);
        count += functions.count;
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
    assert!(count > 100, "functions were not found: {count}");
}

#[test]
fn nothing_is_left_open() {
    let words =
        ["todo!(", "unimplemented!(", concat!("TO", "DO"), concat!("FIX", "ME"), concat!("#[ign", "ore"), "#[allow("];
    let mut open = Vec::new();
    for source in
        sources("src").iter().chain(&sources("tests")).chain(&sources("benches")).filter(|source| source.room != "tidy")
    {
        for word in words.iter().filter(|word| source.text.contains(**word)) {
            open.push(format!("{}: {word}", source.path.display()));
        }
    }
    assert!(open.is_empty(), "{}", open.join("\n"));
}

#[test]
fn the_plan_names_every_room() {
    let plan = fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    for source in sources("src").iter().filter(|source| source.room != "lib") {
        let (folder, file) = (format!("`{}/`", source.room), format!("`{}.rs`", source.room));
        assert!(plan.contains(&folder) || plan.contains(&file), "docs/architecture.md does not name {}", source.room);
    }
}
