//! Kubernetes' `$(NAME)` in commands, arguments and values of environment variables.
//!
//! Follows `third_party/forked/golang/expansion/expand.go` of Kubernetes: an unknown name stays as it was written, `$$` is a dollar.

/// Puts in the values of the variables that are known.
pub(super) fn expand(text: &str, variables: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, dollar) = rest.split_at(at);
        out.push_str(before);
        let after = &dollar[1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            // The last one set is the one that counts, as in an environment.
            match variables.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&dollar[..name.len() + 3]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let variables = [("A", "old"), ("A", "1"), ("B_2", "two"), ("EMPTY", "")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(expand(text, &variables), expected);
    }

    #[test]
    fn names_are_replaced_as_kubernetes_does() {
        check("plain", "plain");
        check("--listen=$(B_2):8080", "--listen=two:8080");
        check("$(A)$(A)", "11");
        check("[$(EMPTY)]", "[]");
    }

    #[test]
    fn what_is_no_known_name_stays() {
        check("$(UNKNOWN) and $A", "$(UNKNOWN) and $A");
        check("$(A", "$(A");
        check("costs $", "costs $");
    }

    #[test]
    fn two_dollars_are_one() {
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
    }
}
