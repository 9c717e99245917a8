//! URIs that are written wrongly, with a known secret in their passwords.

use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// What stands for the password in every URI.
pub const SECRET: &str = "Xq7Zk9Wv3Jt5Yb2M";

/// A piece of this length in a message is a leak.
const PIECE: usize = 5;

/// What is put into a URI where it doesn't belong.
const WRONG: &[&str] = &[
    "?",
    "@",
    ":",
    "/",
    "%",
    "#",
    "[",
    "]",
    "&",
    "=",
    ",",
    " ",
    "\"",
    "'",
    "\\",
    "<",
    "//",
    "%4",
    "\n",
    "é",
    "\0",
    "@@",
    "://",
    "mongodb://",
];

const FRAMES: &[&str] = &[
    "mongodb://user:SECRET@127.0.0.1:1/?replicaSet=rs",
    "mongodb://user:SECRET@127.0.0.1:1,127.0.0.2:2/db?w=1&readPreference=secondary",
    "mongodb+srv://user:SECRET@cluster.invalid/?retryWrites=true",
    "mongodb://127.0.0.1:1/?authMechanismProperties=SERVICE_NAME:SECRET&authMechanism=PLAIN",
    "mongodb://user:SECRET@127.0.0.1/?tlsCAFile=/none&tlsCertificateKeyFilePassword=SECRET",
    "mongodb://user:SECRET@127.0.0.1:1/?authSource=SECRET",
];

/// So many URIs, each changed at one to three places in the ways in which URIs are written wrongly; always the same ones
/// for one seed.
pub fn malformed(seed: u64, count: usize) -> impl Iterator<Item = String> {
    let mut random = SmallRng::seed_from_u64(seed);
    std::iter::repeat_with(move || one(&mut random)).take(count)
}

fn one(random: &mut SmallRng) -> String {
    let frame = FRAMES[random.random_range(0..FRAMES.len())].replace("SECRET", SECRET);
    let mut text: Vec<char> = frame.chars().collect();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..text.len());
        let wrong = WRONG[random.random_range(0..WRONG.len())];
        match random.random_range(0..4) {
            // Without both of these a password is a host's name by all that can be told.
            0 if !matches!(text[at], ':' | '@') => drop(text.remove(at)),
            1 if !matches!(text[at], ':' | '@') => text[at] = wrong.chars().next().unwrap_or('?'),
            _ => drop(text.splice(at..at, wrong.chars())),
        }
    }
    text.into_iter().collect()
}

/// The piece of the secret that `said` holds, if it holds one, in whatever case.
pub fn leak(said: &str) -> Option<&'static str> {
    let said = said.to_lowercase();
    let pieces = (0..=SECRET.len() - PIECE).map(|begin| &SECRET[begin..begin + PIECE]);
    pieces.into_iter().find(|piece| said.contains(&piece.to_lowercase()))
}
