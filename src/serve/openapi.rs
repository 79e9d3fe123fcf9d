//! The description of every path over HTTP, at `/openapi.json`: for clients that are made from one, and for tools that try
//! whether a server keeps to it. It is the same for every server: what models take, their metadata say.

use http::{HeaderValue, StatusCode, header};

use super::routes::{self, JSON, Reply};

const DESCRIPTION: &str = include_str!("openapi.json");

/// The description, in `OpenAPI` 3.1.
pub(super) fn description() -> Reply {
    let mut reply = routes::reply(StatusCode::OK, JSON, DESCRIPTION.as_bytes());
    // Another version of the server has another one.
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    reply
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::serve::routes::Route;

    fn description() -> Value {
        serde_json::from_str(DESCRIPTION).unwrap()
    }

    #[test]
    fn it_is_of_this_version() {
        let description = description();
        assert_eq!(description["openapi"], "3.1.0");
        assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn what_is_described_is_a_route_and_its_method() {
        let description = description();
        for (path, item) in description["paths"].as_object().unwrap() {
            let concrete = path.replace("{name}", "m").replace("{version}", "1");
            let route = Route::of(&concrete).unwrap_or_else(|| panic!("{path} leads nowhere"));
            let methods: Vec<_> =
                item.as_object().unwrap().keys().filter(|key| *key != "parameters").collect();
            assert_eq!(methods, [&route.method().as_str().to_lowercase()], "{path}");
        }
    }

    #[test]
    fn every_route_is_described() {
        let description = description();
        let mut kinds = BTreeSet::new();
        for path in description["paths"].as_object().unwrap().keys() {
            let concrete = path.replace("{name}", "m").replace("{version}", "1");
            kinds.insert(format!("{:?}", Route::of(&concrete).unwrap()));
        }
        // One more kind of route is one more line here and one more path there.
        assert_eq!(kinds.len(), 25, "{kinds:?}");
    }

    #[test]
    fn nothing_is_referred_to_that_is_not_there() {
        fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
            match value {
                Value::Object(fields) => {
                    found.extend(fields.get("$ref").and_then(Value::as_str));
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        let description = description();
        let mut found = BTreeSet::new();
        references(&description, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{reference} is not there");
        }
        for (kind, parts) in description["components"].as_object().unwrap() {
            for name in parts.as_object().unwrap().keys().filter(|_| kind != "securitySchemes") {
                let reference = format!("#/components/{kind}/{name}");
                assert!(found.contains(&*reference), "nobody uses {reference}");
            }
        }
    }
}
