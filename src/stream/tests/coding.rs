use crate::stream::{Coding, accepted};

#[test]
fn the_coding_is_the_one_that_the_client_likes_best() {
    let cases: [(&str, Option<Coding>); 24] = [
        ("", None),
        ("gzip", Some(Coding::Gzip)),
        ("x-gzip", Some(Coding::Gzip)),
        ("GZIP", Some(Coding::Gzip)),
        ("zstd", Some(Coding::Zstd)),
        ("gzip, deflate", Some(Coding::Gzip)),
        ("gzip, deflate, br, zstd", Some(Coding::Zstd)),
        ("zstd;q=0.5, gzip;q=0.8", Some(Coding::Gzip)),
        ("zstd;q=0.8,gzip;q=0.80", Some(Coding::Zstd)),
        ("gzip;q=0", None),
        ("gzip;q=0.000", None),
        ("gzip ; q=0.001", Some(Coding::Gzip)),
        ("zstd;q=0, *", Some(Coding::Gzip)),
        ("zstd;q=0, *;q=0", None),
        ("*", Some(Coding::Zstd)),
        ("*;q=0, gzip", Some(Coding::Gzip)),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", Some(Coding::Gzip)),
        ("identity;q=0, gzip;q=0.1", Some(Coding::Gzip)),
        ("br, deflate", None),
        ("gzip;q=2", None),
        ("gzip;level=1", None),
        (", ,gzip;Q=1.000", Some(Coding::Gzip)),
    ];
    for (field, coding) in cases {
        assert_eq!(accepted(field.as_bytes()), coding, "{field}");
    }
    assert_eq!((Coding::Gzip.name(), Coding::Zstd.name()), ("gzip", "zstd"));
}
