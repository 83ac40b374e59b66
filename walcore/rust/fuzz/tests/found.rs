//! Inputs that once failed: each is run again, as the engine runs it.
#![expect(clippy::disallowed_methods, reason = "an input must not take long")]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use walcore_fuzz::{BASE_BYTES, TARGETS, run};

/// Far above what any input needs, far below a hang.
const LONGEST: Duration = Duration::from_secs(10);

#[test]
fn what_was_found_stays_mended() {
    for (name, target) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("found").join(name);
        let Ok(files) = fs::read_dir(&folder) else { continue };
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            let begun = Instant::now();
            run(target, &fs::read(&path).unwrap());
            assert!(begun.elapsed() < LONGEST);
        }
    }
}

#[test]
#[should_panic(expected = "memory beyond the bound")]
fn an_input_that_takes_more_memory_than_it_pays_for_is_a_failure() {
    run(|_| drop(std::hint::black_box(vec![0u8; 2 * BASE_BYTES])), b"input");
}

#[test]
fn no_target_minds_an_empty_or_a_tiny_input() {
    for (_, target) in TARGETS {
        for len in 0..300 {
            for byte in [0, 1, 0x7F, 0xFF] {
                run(target, &vec![byte; len]);
            }
        }
    }
}
