//! `dockgate check`: reads the configuration and everything it names.

use std::path::Path;

use time::OffsetDateTime;

use dockgate::config::{Config, Upstream};
use dockgate::files::Space;
use dockgate::identity::{COST_DEFAULT, COST_SENSIBLE_MAX, Listing, PROBLEMS_TOLD_MAX, UserFile, UserLine};
use dockgate::net::tls::TlsError;
use dockgate::net::{Concern, certificates, describe, tls};
use dockgate::registry::Origin;
use dockgate::server::descriptors;
use dockgate::telemetry::Metrics;

use super::Common;
use super::exit::{Code, Exit};
use super::serve::{open_legacy, tls_problem, tls_settings};

/// What was found.
#[derive(Default)]
struct Found {
    errors: Vec<String>,
    warnings: Vec<String>,
}

pub(super) fn run(common: &Common) -> Result<(), Exit> {
    let config = common.load_strictly()?;
    let mut found = Found::default();
    found.warnings.extend(config.warnings.iter().map(ToString::to_string));
    check_descriptors(&config, &mut found);
    check_certificates(&config, &mut found);
    check_client_ca(&config, &mut found);
    check_directories(&config, &mut found);
    check_reserve(&config, &mut found);
    check_users(&config, &mut found);
    check_upstreams(&config, &mut found)?;
    found.warnings.iter().for_each(|warning| eprintln!("dockgate: warning: {warning}"));
    if !found.errors.is_empty() {
        return Err(Exit::config(found.errors.join("\n")));
    }
    println!("the configuration is good");
    Ok(())
}

fn check_descriptors(config: &Config, found: &mut Found) {
    let descriptors = descriptors::available();
    match descriptors < descriptors::LEAST {
        true => found.errors.push(descriptors::too_few(descriptors)),
        false => found.warnings.extend(descriptors::shortage(config.limits.connections, descriptors)),
    }
}

fn check_certificates(config: &Config, found: &mut Found) {
    let settings = tls_settings(config);
    if config.tls.certificate.is_none() {
        // `serve` makes and renews all but the authority.
        found.errors.extend(certificates::check(&config.tls.directory).err().map(|error| error.to_string()));
        return;
    }
    let mut problem = |error: TlsError| found.errors.push(tls_problem(config, &error));
    if let Err(error) = tls::check_pair(&settings.certificate, &settings.key) {
        return problem(error);
    }
    match describe(&settings.certificate) {
        Err(error) => problem(error),
        Ok(description) => {
            for concern in description.concerns(OffsetDateTime::now_utc()) {
                let text = format!("tls.certificate: {}: {concern}", settings.certificate.display());
                let has_ended = matches!(concern, Concern::Ended { .. });
                if has_ended { &mut found.errors } else { &mut found.warnings }.push(text);
            }
        }
    }
}

fn check_client_ca(config: &Config, found: &mut Found) {
    let tls = &config.tls;
    let Some(file) = &tls.client_ca else { return };
    // The first start makes it.
    if tls.certificate.is_none() && *file == tls.directory.join("ca.crt") && !file.exists() {
        return;
    }
    found.errors.extend(tls::check_client_ca(file).err().map(|error| tls_problem(config, &error)));
}

/// What will be made has to have a place.
fn check_directories(config: &Config, found: &mut Found) {
    let own = config.tls.certificate.is_none().then_some(("tls.directory", &*config.tls.directory));
    let users = config.identity.htpasswd.parent().map(|directory| ("identity.htpasswd", directory));
    for (key, directory) in [("registry.data", &*config.registry.data), ("cache.path", &*config.cache.path)]
        .into_iter()
        .chain(own)
        .chain(users)
    {
        let there = directory.ancestors().find(|path| *path != Path::new("") && path.exists());
        if let Some(file) = there.filter(|path| !path.is_dir()) {
            found.errors.push(format!("{key}: {} is a file; name a directory, or move the file away", file.display()));
        }
    }
}

/// A disk on which nothing could ever be pushed.
fn check_reserve(config: &Config, found: &mut Found) {
    let (data, bytes) = (&*config.registry.data, config.limits.disk_reserve);
    let there = data.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("."));
    let Ok(disk) = Space::of_path(there) else { return };
    if bytes >= disk.size {
        found.errors.push(format!(
            "limits.disk_reserve: {bytes} bytes are to stay free, but the disk of {} has {}, so nothing could ever be pushed; \
             lower it",
            data.display(),
            disk.size,
        ));
    }
}

fn check_users(config: &Config, found: &mut Found) {
    let file = &config.identity.htpasswd;
    match UserFile::new(file).list() {
        Ok(listing) => {
            found.errors.extend(listing.bad_lines.told(file));
            found.warnings.extend(costly_users(file, &listing));
        }
        Err(error) => found.errors.push(format!("identity.htpasswd: {}: {error}", file.display())),
    }
}

/// Everybody who fails to log in waits for as long as the costliest hash takes, so that nobody learns who is a user.
fn costly_users(file: &Path, listing: &Listing) -> impl Iterator<Item = String> {
    let costly = listing.users.iter().filter(|user| user.cost > COST_SENSIBLE_MAX).take(PROBLEMS_TOLD_MAX);
    costly.map(|UserLine { name, cost, line }| {
        format!(
            "{}:{line}: user {name:?}: its bcrypt cost is {cost}, so every failed login of anybody is answered {} times as \
             late as with {COST_DEFAULT}; set the password again with `dockgate user add NAME`",
            file.display(),
            1_u64 << (cost - COST_DEFAULT),
        )
    })
}

fn check_upstreams(config: &Config, found: &mut Found) -> Result<(), Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Exit::new(Code::Software, format_args!("no threads can be started: {error}")))?;
    let metrics = Metrics::new();
    let legacy = runtime.block_on(open_legacy(config, &metrics)).err().map(|error| error.to_string());
    found.errors.extend(legacy);
    for upstream in config.upstreams.values() {
        if let Upstream::Remote(remote) = upstream {
            let opened = runtime.block_on(Origin::open(remote, "check", config.limits.upstream_patience, &metrics));
            found.errors.extend(opened.err().map(|error| error.to_string()));
        }
    }
    Ok(())
}
