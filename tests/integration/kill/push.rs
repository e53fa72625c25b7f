//! One push, request by request.

use super::Random;
use super::ledger::{Attempt, Ledger, Upload};
use crate::support::content::{self, digest};
use crate::support::{Answer, Client};

/// A request of a push, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Begin,
    Patch,
    Put,
    Monolithic,
    Mount,
    /// A blob that is there already, from another repository.
    Again,
    Manifest,
}

pub(super) const STEPS: [Step; 7] =
    [Step::Begin, Step::Patch, Step::Put, Step::Monolithic, Step::Mount, Step::Again, Step::Manifest];

impl Step {
    /// The status that acknowledges it.
    pub(super) const fn success(self) -> u16 {
        match self {
            Self::Begin | Self::Patch => 202,
            _ => 201,
        }
    }
}

const REPOSITORY: &str = "app";
const OTHER: &str = "other";

/// Two blobs and a manifest over them.
pub(super) struct Push {
    first: Vec<u8>,
    second: Vec<u8>,
    tag: String,
    location: String,
}

impl Push {
    pub(super) fn new(random: &mut Random) -> Self {
        let (first, second) = (random.bytes(3_000), random.bytes(2_000));
        Self { first, second, tag: format!("tag-{}", random.below(1_000)), location: String::new() }
    }

    /// Does these steps, each of which must succeed.
    pub(super) fn succeed(&mut self, steps: &[Step], client: &Client, ledger: &mut Ledger) {
        for step in steps {
            let answer = self.send(*step, client, ledger).unwrap_or_else(|text| panic!("{step:?}: {text}"));
            answer.expect(step.success());
        }
    }

    /// Does one step, which may fail.
    pub(super) fn send(&mut self, step: Step, client: &Client, ledger: &mut Ledger) -> Result<Answer, String> {
        let (method, path, body) = self.request(step);
        let attempts = self.attempts(step);
        if step == Step::Put {
            ledger.upload().closing = true;
        }
        attempts.iter().for_each(|attempt| ledger.attempt(attempt.clone()));
        let headers: &[_] = if step == Step::Manifest { &[("Content-Type", content::OCI_MANIFEST)] } else { &[] };
        let answer = client.try_send(method, &path, headers, &body)?;
        if answer.status == step.success() {
            attempts.iter().for_each(|_| ledger.acknowledge());
            self.succeeded(step, &answer, ledger);
        }
        Ok(answer)
    }

    fn request(&self, step: Step) -> (&'static str, String, Vec<u8>) {
        let (head, tail) = self.first.split_at(self.first.len() / 2);
        let uploads = |repository: &str| format!("/v2/{repository}/blobs/uploads/");
        let (first, second) = (digest(&self.first), digest(&self.second));
        match step {
            Step::Begin => ("POST", uploads(REPOSITORY), Vec::new()),
            Step::Patch => ("PATCH", self.location.clone(), head.to_vec()),
            Step::Put => ("PUT", format!("{}?digest={first}", self.location), tail.to_vec()),
            Step::Monolithic => ("POST", format!("{}?digest={second}", uploads(REPOSITORY)), self.second.clone()),
            Step::Mount => ("POST", format!("{}?mount={second}&from={REPOSITORY}", uploads(OTHER)), Vec::new()),
            Step::Again => ("POST", format!("{}?digest={first}", uploads(OTHER)), self.first.clone()),
            Step::Manifest => ("PUT", format!("/v2/{REPOSITORY}/manifests/{}", self.tag), self.manifest()),
        }
    }

    fn attempts(&self, step: Step) -> Vec<Attempt> {
        let blob =
            |repository: &str, bytes: &[u8]| Attempt::Blob { repository: repository.into(), digest: digest(bytes) };
        match step {
            Step::Begin | Step::Patch => Vec::new(),
            Step::Put => vec![blob(REPOSITORY, &self.first)],
            Step::Monolithic => vec![blob(REPOSITORY, &self.second)],
            Step::Mount => vec![blob(OTHER, &self.second)],
            Step::Again => vec![blob(OTHER, &self.first)],
            Step::Manifest => {
                let (tag, bytes) = (self.tag.clone(), self.manifest());
                vec![Attempt::Manifest { repository: REPOSITORY.into(), tag, bytes }]
            }
        }
    }

    fn succeeded(&mut self, step: Step, answer: &Answer, ledger: &mut Ledger) {
        match step {
            Step::Begin => {
                self.location = answer.header("location").unwrap().to_owned();
                let (location, bytes) = (self.location.clone(), self.first.clone());
                let upload = Upload {
                    repository: REPOSITORY.into(),
                    location,
                    bytes,
                    acknowledged: 0,
                    closing: false,
                    is_doubtful: false,
                };
                ledger.attempt(Attempt::Upload(upload));
            }
            Step::Patch => ledger.upload().acknowledged = self.first.len() as u64 / 2,
            // The upload is over.
            Step::Put => ledger.acknowledge(),
            _ => {}
        }
    }

    fn manifest(&self) -> Vec<u8> {
        content::manifest(&[&self.first, &self.second])
    }
}
