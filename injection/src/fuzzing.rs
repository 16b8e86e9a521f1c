//! Entrances of the fuzz targets (`fuzz`): each takes any bytes, and panics if a property does not hold.

mod admission_review;
mod template;

pub use self::{admission_review::admission_review, template::template};

/// Every input that the repository keeps, among them those that were findings.
#[cfg(test)]
mod tests {
    use std::{fs, panic, path::Path};

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 2] = [
        ("admission_review", super::admission_review),
        ("template", super::template),
    ];

    #[test]
    fn the_properties_hold_for_the_corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let mut count = 0;
            for input in fs::read_dir(corpus.join(name)).unwrap() {
                let input = input.unwrap().path();
                let data = fs::read(&input).unwrap();
                let holds = panic::catch_unwind(|| target(&data)).is_ok();
                assert!(holds, "{}", input.display());
                count += 1;
            }
            assert!(count > 0, "{name} has no corpus");
        }
    }
}
