//! Whether the workload has the shape that it is to have.

use crate::lru::Lru;
use crate::model::{BLOB_GETS, SIZES, Step, Workload};
use crate::report::head;

/// One property: what it is to be, what it is, and how far it may be off.
struct Property {
    name: String,
    expected: f64,
    found: f64,
    tolerance: f64,
}

impl Property {
    fn is_met(&self) -> bool {
        (self.found - self.expected).abs() <= self.tolerance
    }
}

/// Prints what it is beside what it should be; whether all of it is met.
pub fn check(workload: &Workload) -> bool {
    let gets = workload.blobs().count();
    let mut properties = requests(workload);
    properties.extend(sizes(workload));
    properties.extend(popularity(workload));
    properties.extend(hits(workload));
    properties.extend(gaps(workload));
    println!("{}", head(&["the workload", "expected", "is", "may be off by"]));
    for Property { name, expected, found, tolerance } in &properties {
        println!("| {name} | {expected:.2} | {found:.2} | {tolerance:.2} |");
    }
    println!();
    if gets != BLOB_GETS {
        println!(
            "The shape is that of {BLOB_GETS} GETs of blobs; with {gets} it is only near to it, and not insisted on.\n"
        );
        return true;
    }
    properties.iter().all(Property::is_met)
}

fn requests(workload: &Workload) -> Vec<Property> {
    let (mut get, mut head, mut put, mut post, mut patched) = (0, 0, 0, 0, 0);
    for step in &workload.steps {
        match step {
            Step::Ping | Step::Blob(_) | Step::Manifest(_) => get += 1,
            Step::HeadManifest(_) => head += 1,
            Step::PushManifest => put += 1,
            Step::PushBlob { patch } => {
                put += 1;
                post += 1;
                patched += usize::from(*patch);
            }
        }
    }
    let all = (get + head + put + post + patched) as f64;
    let property = |name: &str, expected, found: usize| Property {
        name: format!("{name}, % of the requests"),
        expected,
        found: 100.0 * found as f64 / all,
        tolerance: 0.1,
    };
    vec![
        property("GET", 79.0, get),
        property("HEAD", 11.0, head),
        property("PUT", 5.2, put),
        property("POST", 2.9, post),
        property("PATCH", 1.9, patched),
        property("GET of blobs", 79.0 * 0.357, workload.blobs().count()),
    ]
}

fn sizes(workload: &Workload) -> Vec<Property> {
    let mut sizes = workload.sizes.clone();
    sizes.sort_by(f64::total_cmp);
    let mut properties: Vec<Property> = SIZES[1..]
        .iter()
        .map(|&(share, expected)| Property {
            name: format!("size of a blob, P{:.0}, KB", share * 100.0),
            expected: expected / 1e3,
            found: sizes[(sizes.len() as f64 * share) as usize] / 1e3,
            tolerance: expected / 1e3 * 0.15,
        })
        .collect();
    let total: f64 = sizes.iter().sum();
    let large: f64 = sizes.iter().filter(|&&size| size > SIZES[SIZES.len() - 1].1).sum();
    let mean = total / sizes.len() as f64 / 1e6;
    properties.push(Property { name: "size of a blob, mean, MB".into(), expected: 14.4, found: mean, tolerance: 1.5 });
    let asked: f64 = workload.blobs().map(|blob| workload.sizes[blob as usize]).sum();
    let mean = asked / workload.blobs().count() as f64 / 1e6;
    properties.push(Property { name: "bytes of a GET, mean, MB".into(), expected: 14.4, found: mean, tolerance: 3.0 });
    properties.push(Property {
        name: "bytes in blobs over 64 MiB, %".into(),
        expected: 65.0,
        found: 100.0 * large / total,
        tolerance: 4.0,
    });
    properties
}

fn popularity(workload: &Workload) -> Vec<Property> {
    let mut counts = vec![0usize; workload.sizes.len()];
    workload.blobs().for_each(|blob| counts[blob as usize] += 1);
    counts.sort_unstable_by(|one, other| other.cmp(one));
    let once = counts.iter().filter(|&&count| count == 1).count() as f64 / counts.len() as f64;
    let top: usize = counts[..counts.len() / 100].iter().sum();
    let top = top as f64 / counts.iter().sum::<usize>() as f64;
    vec![
        Property { name: "blobs asked for once, %".into(), expected: 68.0, found: 100.0 * once, tolerance: 5.0 },
        Property { name: "GETs of the top 1 % of blobs, %".into(), expected: 44.0, found: 100.0 * top, tolerance: 5.0 },
    ]
}

/// Of caches that count objects, as the traces were measured.
fn hits(workload: &Workload) -> Vec<Property> {
    let objects = workload.sizes.len();
    let gets = workload.blobs().count() as f64;
    let hits = |share: f64| {
        let mut lru = Lru::new(objects, (objects as f64 * share).round() as u64, 1);
        100.0 * workload.blobs().filter(|&blob| lru.touch(blob, 1)).count() as f64 / gets
    };
    [(0.01, 41.9), (0.05, 57.1), (0.10, 62.4), (0.20, 65.4), (1.0, 68.6)]
        .into_iter()
        .map(|(share, expected)| Property {
            name: format!("hits of an LRU of {:.0} % of the blobs, %", share * 100.0),
            expected,
            found: hits(share),
            tolerance: if share < 1.0 { 2.0 } else { 0.2 },
        })
        .collect()
}

fn gaps(workload: &Workload) -> Vec<Property> {
    let mut last = vec![None; workload.sizes.len()];
    let mut gaps = Vec::new();
    for (index, blob) in workload.blobs().enumerate() {
        if let Some(before) = last[blob as usize].replace(index) {
            gaps.push(index - before);
        }
    }
    gaps.sort_unstable();
    [(0.50, 371.0), (0.75, 4_310.0), (0.90, 14_669.0)]
        .into_iter()
        .map(|(share, expected)| Property {
            name: format!("GETs of blobs until a blob is asked for again, P{:.0}", share * 100.0),
            expected,
            found: gaps[(gaps.len() as f64 * share) as usize] as f64,
            tolerance: expected * 0.25,
        })
        .collect()
}
