//! Which program an image stands for.

use std::collections::BTreeMap;

/// Image names, and the program with its fixed arguments that stands in for each.
///
/// A name is looked for as it was written, then without its digest or tag: with an entry for `shop`, `shop:1` and `shop:2` both run.
#[derive(Clone, Debug, Default)]
pub struct Images(BTreeMap<String, Vec<String>>);

impl Images {
    /// Lets an image stand for a program and the arguments that come before the pod's own. As in Kubernetes, a container's `command`
    /// takes the place of all of this, and its `args` come after it.
    pub fn set<T: Into<String>>(&mut self, image: &str, argv: impl IntoIterator<Item = T>) {
        self.0.insert(image.to_owned(), argv.into_iter().map(Into::into).collect());
    }

    /// What an image runs; none if nobody said so.
    pub(super) fn resolve(&self, image: &str) -> Option<&[String]> {
        let undigested = image.split('@').next().unwrap_or(image);
        // A colon before the last slash is a registry's port.
        let untagged = match undigested.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => name,
            _ => undigested,
        };
        [image, undigested, untagged].into_iter().find_map(|name| self.0.get(name)).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::Images;

    #[track_caller]
    fn check(image: &str, expected: Option<&str>) {
        let mut images = Images::default();
        images.set("shop", ["any"]);
        images.set("shop:2", ["two"]);
        images.set("localhost:5000/shop", ["registry"]);
        assert_eq!(images.resolve(image).map(|argv| argv[0].as_str()), expected, "{image}");
    }

    #[test]
    fn the_most_exact_name_of_an_image_wins() {
        check("shop", Some("any"));
        check("shop:1", Some("any"));
        check("shop:2", Some("two"));
        check("shop:1@sha256:abc", Some("any"));
        check("localhost:5000/shop", Some("registry"));
        check("localhost:5000/shop:7", Some("registry"));
        check("other:1", None);
    }
}
