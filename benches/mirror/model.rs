//! A workload shaped like the traces of a large public registry: what is asked, how big it is, how soon it is asked again.

use crate::random::Random;

/// GETs of blobs by default: as many as the measured gaps belong to.
pub const BLOB_GETS: usize = 240_000;

/// Of all requests; the rest of them are PUT.
const GET: f64 = 0.79;
const HEAD: f64 = 0.11;
const POST: f64 = 0.029;
const PATCH: f64 = 0.019;
const PUT: f64 = 0.052;
/// Of the GETs; the rest are pings.
const GET_BLOB: f64 = 0.357;
const GET_MANIFEST: f64 = 0.183;

/// Of the GETs of blobs, those of one that was asked for before.
const HIT_AT_BEST: f64 = 0.686;
const BLOB_ZIPF: f64 = 0.875;
const MANIFEST_ZIPF: f64 = 1.18;
/// The traces have 1.96.
pub const BLOBS_OF_A_MANIFEST: usize = 2;

/// Sizes in bytes by share of the blobs, up to where the Pareto tail begins.
pub const SIZES: [(f64, f64); 9] = [
    (0.0, 32.0),
    (0.10, 181.0),
    (0.25, 1.1e3),
    (0.50, 11.5e3),
    (0.65, 0.6e6),
    (0.75, 5.3e6),
    (0.80, 12e6),
    (0.90, 38e6),
    (0.94, 67_108_864.0),
];
const TAIL_ALPHA: f64 = 1.70;
pub const SIZE_MAX: f64 = 8e9;

/// All requests for a blob fall into a span of its own, which is this share of the workload or more, evenly in its
/// logarithm; between them are gaps that vary as a log-normal with this deviation. Fitted to the gaps and the hits that
/// were measured in the traces. Without spans, in a memoryless workload, hits are understated by 8 to 13 points.
const SPAN_MIN: f64 = 0.013;
const GAP_DEVIATION: f64 = 0.5;
/// Steps of these lie evenly between 0 and 1, however many are taken: few blobs have many of the requests, and what they
/// drew by chance would bend the whole.
const GOLDEN: f64 = 0.618_033_988_749_894_9;
const SILVER: f64 = std::f64::consts::SQRT_2 - 1.0;

/// One thing that a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Ping,
    Blob(u32),
    Manifest(u32),
    HeadManifest(u32),
    /// POST, perhaps PATCH, and PUT.
    PushBlob {
        patch: bool,
    },
    PushManifest,
}

impl Step {
    /// How many requests it takes.
    pub const fn requests(&self) -> usize {
        match self {
            Self::PushBlob { patch } => 2 + *patch as usize,
            _ => 1,
        }
    }
}

pub struct Workload {
    pub steps: Vec<Step>,
    /// Of each blob, in bytes, before they are scaled down.
    pub sizes: Vec<f64>,
    pub manifests: usize,
}

impl Workload {
    pub fn new(seed: u64, blob_gets: usize) -> Self {
        let mut random = Random::new(seed);
        let counts = counts(blob_gets);
        let sizes = sizes(counts.len());
        let manifests = counts.len().div_ceil(BLOBS_OF_A_MANIFEST);
        let mut blobs = sequence(&mut random, &counts, blob_gets).into_iter();
        let mut steps = mix(&mut random, blobs.len());
        let popularity = cumulative(manifests);
        for step in &mut steps {
            match step {
                Step::Blob(blob) => *blob = blobs.next().unwrap_or_default(),
                Step::Manifest(manifest) | Step::HeadManifest(manifest) => {
                    let drawn = random.unit();
                    *manifest = popularity.partition_point(|&share| share <= drawn) as u32;
                }
                _ => {}
            }
        }
        Self { steps, sizes, manifests }
    }

    /// The blobs in the order in which they are asked for.
    pub fn blobs(&self) -> impl Iterator<Item = u32> {
        blobs(&self.steps)
    }
}

pub fn blobs(steps: &[Step]) -> impl Iterator<Item = u32> {
    steps.iter().filter_map(|step| match step {
        Step::Blob(blob) => Some(*blob),
        _ => None,
    })
}

/// What is done how often, in any order; which blob and which manifest is told later.
fn mix(random: &mut Random, blob_gets: usize) -> Vec<Step> {
    let requests = blob_gets as f64 / (GET * GET_BLOB);
    let kinds = [
        (Step::Ping, GET * (1.0 - GET_BLOB - GET_MANIFEST)),
        (Step::Manifest(0), GET * GET_MANIFEST),
        (Step::HeadManifest(0), HEAD),
        (Step::PushBlob { patch: true }, PATCH),
        (Step::PushBlob { patch: false }, POST - PATCH),
        (Step::PushManifest, PUT - POST),
    ];
    let mut steps = vec![Step::Blob(0); blob_gets];
    for (step, share) in kinds {
        steps.extend(vec![step; (requests * share).round() as usize]);
    }
    random.shuffle(&mut steps);
    steps
}

/// How often each blob is asked for, the most popular first: Zipf in whole numbers, so that most are asked for once.
fn counts(blob_gets: usize) -> Vec<usize> {
    let unique = (blob_gets as f64 * (1.0 - HIT_AT_BEST)).round() as usize;
    let weights: Vec<f64> = (1..=unique).map(|rank| (rank as f64).powf(-BLOB_ZIPF)).collect();
    let count = |scale: f64, weight: f64| ((scale * weight).round() as usize).max(1);
    let (mut low, mut high) = (0.0, blob_gets as f64);
    for _ in 0..64 {
        let middle = f64::midpoint(low, high);
        let total: usize = weights.iter().map(|&weight| count(middle, weight)).sum();
        if total > blob_gets { high = middle } else { low = middle }
    }
    weights.into_iter().map(|weight| count(low, weight)).collect()
}

fn sequence(random: &mut Random, counts: &[usize], blob_gets: usize) -> Vec<u32> {
    let mut events: Vec<(f64, u32)> = Vec::with_capacity(blob_gets);
    for (blob, &count) in counts.iter().enumerate() {
        let span = if count > 1 { SPAN_MIN.powf((blob as f64).mul_add(GOLDEN, 0.5).fract()) } else { 0.0 };
        let gaps: Vec<f64> = (1..count).map(|_| (GAP_DEVIATION * random.normal()).exp()).collect();
        let scale = span / gaps.iter().sum::<f64>().max(f64::MIN_POSITIVE);
        let mut moment = random.unit() * (1.0 - span);
        events.push((moment, blob as u32));
        for gap in gaps {
            moment += gap * scale;
            events.push((moment, blob as u32));
        }
    }
    events.sort_by(|one, other| one.0.total_cmp(&other.0));
    events.into_iter().map(|(_, blob)| blob).collect()
}

/// Popular blobs are as large as others, and not as chance has it: one of 8 GB at the top would be most of all bytes.
fn sizes(count: usize) -> Vec<f64> {
    (1..=count).map(|rank| size((rank as f64).mul_add(SILVER, 0.5).fract())).collect()
}

/// The size that this share of the blobs does not exceed.
fn size(share: f64) -> f64 {
    let (tail, least) = SIZES[SIZES.len() - 1];
    if share >= tail {
        let rest = (share - tail) / (1.0 - tail);
        let cut = 1.0 - (least / SIZE_MAX).powf(TAIL_ALPHA);
        return least * rest.mul_add(-cut, 1.0).powf(-1.0 / TAIL_ALPHA);
    }
    let above = SIZES.partition_point(|&(point, _)| point <= share);
    let ((from, low), (to, high)) = (SIZES[above - 1], SIZES[above]);
    low * (high / low).powf((share - from) / (to - from))
}

/// The share of the requests that the manifests up to each one have together.
fn cumulative(manifests: usize) -> Vec<f64> {
    let mut total = 0.0;
    let mut sums: Vec<f64> = (1..=manifests)
        .map(|rank| {
            total += (rank as f64).powf(-MANIFEST_ZIPF);
            total
        })
        .collect();
    sums.iter_mut().for_each(|sum| *sum /= total);
    sums
}
