//! The share of one environment in what was collected. Pure.
//!
//! A series belongs to the environment its label names. Those that name none are sums over all environments and are left out;
//! only the version of the program is everybody's.

/// Of everybody.
const COMMON: &str = "syncline_build_info";

/// The lines of `all` that are of an environment, with the descriptions of those that remain.
pub(super) fn of(all: &str, environment: &str) -> String {
    let label = format!("environment=\"{}\"", escaped(environment));
    let mut kept = String::new();
    let mut descriptions = String::new();
    for line in all.lines() {
        if line.starts_with('#') {
            // The first line of the next metric: the one before had no series here.
            if line.starts_with("# HELP") || descriptions.contains("# TYPE") {
                descriptions.clear();
            }
            descriptions.push_str(line);
            descriptions.push('\n');
        } else if is_of(line, &label) {
            kept.push_str(&descriptions);
            descriptions.clear();
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn is_of(line: &str, label: &str) -> bool {
    let name = line.split(['{', ' ']).next().unwrap_or_default();
    // Quotes inside of a value are written with a backslash, so no value can hold a label.
    let borders = |before: char| matches!(before, '{' | ',');
    name == COMMON || line.match_indices(label).any(|(at, _)| line[..at].ends_with(borders))
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_sees_its_own_series_and_nothing_about_others() {
        let all = "# HELP a of streams\n# TYPE a counter\na{environment=\"x\",stream=\"S\"} 1\na{environment=\"y\",stream=\"T\"} 2\n\n\
                   # HELP b of y\n# TYPE b gauge\nb{environment=\"y\"} 3\n\n# HELP c of all\n# TYPE c gauge\nc 4\n\n\
                   # TYPE syncline_build_info gauge\nsyncline_build_info{version=\"1\"} 1\n\
                   d{stream=\"\\\",environment=\\\"x\\\"\"} 5\ne_bucket{stream=\"S\",environment=\"x\",le=\"+Inf\"} 6\n\
                   f{my_environment=\"x\"} 7\n";
        let wanted = "# HELP a of streams\n# TYPE a counter\na{environment=\"x\",stream=\"S\"} 1\n\
                      # TYPE syncline_build_info gauge\nsyncline_build_info{version=\"1\"} 1\n\
                      e_bucket{stream=\"S\",environment=\"x\",le=\"+Inf\"} 6\n";
        assert_eq!(of(all, "x"), wanted);
    }
}
