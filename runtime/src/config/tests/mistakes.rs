//! A file for every mistake, and the whole line that is printed for it.

use bus_schema::limits::DRIVERS_MAX;

use super::{parse, said, said_of};

/// Compares without the file's name, which every line begins with.
#[track_caller]
fn lines(said: &str, expected: &[&str]) {
    let said: Vec<_> =
        said.lines().map(|line| line.strip_prefix("exporter.yaml:").unwrap()).collect();
    assert_eq!(said, expected, "{said:#?}");
}

#[test]
fn a_line_has_file_line_column_keys_text_and_suggestion() {
    let said = said_of("  power:\n    typ: fake-power\n");
    assert_eq!(
        said,
        "exporter.yaml:4:5: export.power.typ: unknown key \"typ\"; did you mean \"type\"?"
    );
}

#[test]
fn every_mistake_of_a_file_is_told_at_once() {
    let text = "metadata: {nam: b}\nexport:\n  p: {type: fake-powr}\n  q: {}\n  r: {ref: nowhere}\n  \
                s: {type: fake-power, config: {port: x}}\nhooks: {beforeLeas: x}\n";
    lines(
        &said(text),
        &[
            "1:12: metadata.nam: unknown key \"nam\"; did you mean \"name\"?",
            "3:13: export.p.type: unknown kind of driver \"fake-powr\"; did you mean \"fake-power\"?",
            "4:3: export.q: an empty entry: give it \"type\", \"children\" or \"ref\"",
            "5:12: export.r.ref: there is no driver \"nowhere\" in \"export\"",
            "6:25: export.s.config: the key \"url\" is missing: text",
            "6:40: export.s.config.port: expected an integer from zero, got the text \"x\"",
            "7:9: hooks.beforeLeas: unknown key \"beforeLeas\"; did you mean \"beforeLease\"?",
        ],
    );
}

#[test]
fn an_unknown_key_at_the_top_is_told() {
    lines(
        &said("name: b\nexports: {m: {type: fake-machine}}"),
        &["2:1: exports: unknown key \"exports\"; did you mean \"export\"?"],
    );
}

#[test]
fn an_unknown_key_that_is_near_none_lists_what_there_is() {
    lines(
        &said("metadata: {name: b, annotations: {}}\nexport: {m: {type: fake-machine}}"),
        &[
            "1:21: metadata.annotations: unknown key \"annotations\": there are name, namespace, labels",
        ],
    );
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    lines(
        &said_of("  p: fake-power\n  q: [a]\n"),
        &[
            "3:6: export.p: expected a mapping, got the text \"fake-power\"",
            "4:6: export.q: expected a mapping, got a list",
        ],
    );
    lines(
        &said_of("  p: {type: 5, labels: {rack: 3, spare: true}, description: [x], children: a}\n"),
        &[
            "3:13: export.p.type: expected text, got a number: put it in quotes",
            "3:31: export.p.labels.rack: expected text, got a number: put it in quotes",
            "3:41: export.p.labels.spare: expected text, got a boolean: put it in quotes",
            "3:61: export.p.description: expected text, got a list",
            "3:76: export.p.children: expected a mapping, got the text \"a\"",
        ],
    );
    lines(&said("just text"), &["1:1: expected a mapping, got the text \"just text\""]);
}

#[test]
fn a_config_that_is_no_mapping_does_not_become_a_composite() {
    lines(
        &said_of("  p: {type: fake-power, config: text}\n"),
        &["3:33: export.p.config: expected a mapping, got the text \"text\""],
    );
}

#[test]
fn an_unknown_kind_is_told_and_what_is_in_it_too() {
    lines(
        &said_of(
            "  p:\n    type: fake.driver.Powre\n    children: {x: {typ: y}}\n  q: {type: camera}\n",
        ),
        &[
            "4:11: export.p.type: unknown kind of driver \"fake.driver.Powre\"; did you mean \
             \"fake.driver.Power\"?",
            "5:20: export.p.children.x.typ: unknown key \"typ\"; did you mean \"type\"?",
            "6:13: export.q.type: unknown kind of driver \"camera\"",
        ],
    );
}

#[test]
fn a_key_twice_is_told() {
    lines(
        &said_of("  p: {type: fake-machine}\n  p: {type: fake-machine}\n"),
        &["4:3: export.p: the key \"p\" is there twice, first in line 3"],
    );
}

#[test]
fn a_missing_key_is_told() {
    lines(
        &said("description: x"),
        &[
            "1:1: the exporter's name is missing: write \"metadata: {name: …}\"",
            "1:1: the key \"export\" is missing: the drivers",
        ],
    );
    lines(
        &said("metadata: {labels: {}}\nexport: {m: {type: fake-machine}}"),
        &["1:1: the exporter's name is missing: write \"metadata: {name: …}\""],
    );
    lines(
        &said_of("  p: {type: fake-power}\n"),
        &["3:3: export.p.config: the key \"url\" is missing: text"],
    );
}

#[test]
fn a_bad_name_is_told() {
    lines(
        &said("name: Bench 1\nexport: {m: {type: fake-machine}}"),
        &["1:7: name: \"Bench 1\" is no exporter name: use 1 to 64 of a-z, 0-9, '_' and '-', and \
           begin with a letter or digit"],
    );
    lines(
        &said_of("  my power: {type: fake-machine}\n  ..: {type: fake-machine}\n"),
        &[
            "3:3: export.\"my power\": \"my power\" is no child's name: use 1 to 64 of a-z, A-Z, 0-9, \
             '_', '-' and '.'",
            "4:3: export.\"..\": \"..\" is no child's name: use 1 to 64 of a-z, A-Z, 0-9, '_', '-' \
             and '.'",
        ],
    );
    lines(
        &said_of("  p: {type: fake-machine, turn: a b}\n"),
        &[
            "3:33: export.p.turn: \"a b\" is no name of a turn: use 1 to 64 of a-z, A-Z, 0-9, '_', '-' \
           and '.'",
        ],
    );
    lines(
        &said("name: b\nmetadata: {name: b}\nexport: {m: {type: fake-machine}}"),
        &["2:12: metadata.name: \"name\" is there twice, first in line 1"],
    );
}

#[test]
fn a_ref_to_nothing_suggests_what_is_near() {
    lines(
        &said_of("  power: {type: fake-machine}\n  a: {ref: powr}\n  b: {ref: power/consle}\n"),
        &[
            "4:12: export.a.ref: there is no driver \"powr\" in \"export\"; did you mean \"power\"?",
            "5:12: export.b.ref: there is no driver \"power/consle\" in \"export\"; did you mean \
             \"power/console\"?",
        ],
    );
}

#[test]
fn a_ref_below_a_driver_with_mistakes_is_not_one_more() {
    lines(
        &said_of("  p: {type: fake-machin}\n  a: {ref: p.console}\n"),
        &[
            "3:13: export.p.type: unknown kind of driver \"fake-machin\"; did you mean \"fake-machine\"?",
        ],
    );
}

#[test]
fn a_ref_in_a_circle_is_told() {
    lines(
        &said_of("  a: {ref: a}\n"),
        &["3:12: export.a.ref: \"a\" leads in a circle back to here"],
    );
    lines(
        &said_of("  a: {ref: b}\n  b: {ref: a}\n"),
        &["4:12: export.b.ref: \"a\" leads in a circle back to here"],
    );
    lines(
        &said_of("  dut: {children: {self: {ref: dut}}}\n"),
        &["3:32: export.dut.children.self.ref: \"dut\" leads in a circle back to here"],
    );
    lines(
        &said_of("  a: {children: {x: {ref: b}}}\n  b: {children: {y: {ref: a}}}\n"),
        &["4:27: export.b.children.y.ref: \"a\" leads in a circle back to here"],
    );
}

#[test]
fn a_ref_has_nothing_else() {
    lines(
        &said_of("  m: {type: fake-machine}\n  a: {ref: m, type: fake-machine}\n"),
        &["4:15: export.a.type: \"type\" does not go with \"ref\": it belongs to what that names"],
    );
}

#[test]
fn a_uuid_that_is_pinned_twice_is_told() {
    let uuid = "00000000-0000-4000-8000-000000000001";
    lines(
        &said_of(&format!(
            "  a: {{type: fake-machine, uuid: {uuid}}}\n  b: {{type: fake-machine, config: {{uuid: \
             {uuid}}}}}\n  c: {{type: fake-machine, uuid: nonsense}}\n"
        )),
        &[
            "4:42: export.b.config.uuid: this UUID is pinned twice, first in line 3",
            "5:33: export.c.uuid: \"nonsense\" is no driver id (UUID)",
        ],
    );
}

#[test]
fn too_many_drivers_are_told_once() {
    let entries: String =
        (0..DRIVERS_MAX + 5).map(|n| format!("  d{n}: {{type: fake-host}}\n")).collect();
    lines(&said_of(&entries), &["65538:3: export.d65535: more than 65536 drivers, with the root"]);
}

#[test]
fn a_tree_that_is_too_deep_is_told() {
    let deep = |steps: usize| {
        let (open, close) = ("{children: {d: ".repeat(steps - 1), "}}".repeat(steps - 1));
        format!("name: b\nexport: {{d: {open}{{type: fake-host}}{close}}}")
    };
    parse(&deep(32)).unwrap();
    let said = said(&deep(33));
    assert!(said.ends_with(": the path is deeper than 32"), "{said}");
    assert!(said.starts_with("exporter.yaml:2:"), "{said}");
}

#[test]
fn nesting_without_end_stops_at_a_bound() {
    for open in ["[", "{a: ", "- ", "? "] {
        let said = said(&format!("export: {}", open.repeat(100_000)));
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("exporter.yaml:1:"), "{said}");
    }
    let deep = format!("name: b\nexport: {}", "[".repeat(200));
    lines(&said(&deep), &[&format!("2:112: export{}: nested deeper than 104", "[0]".repeat(103))]);
}

#[test]
fn aliases_that_double_end_at_a_bound() {
    let doubling: String =
        (1..40).map(|n| format!("  a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1)).collect();
    let said = said(&format!("x:\n  a0: &a0 [some, text]\n{doubling}"));
    assert!(said.ends_with("the anchors and aliases stand for more than 1048576 bytes"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn an_alias_in_itself_is_told() {
    lines(&said("a: &a [*a]"), &["1:8: a[0]: an alias inside of what it stands for"]);
}

#[test]
fn an_entry_with_nothing_is_told() {
    let empty = "an empty entry: give it \"type\", \"children\" or \"ref\"";
    lines(
        &said_of("  p: {}\n  q:\n  r: {description: x}\n  s: {children: {}}\n"),
        &[
            &format!("3:3: export.p: {empty}"),
            &format!("4:3: export.q: {empty}"),
            "5:3: export.r: neither \"type\" nor \"children\" nor \"ref\" is here",
            "6:7: export.s.children: no driver in here",
        ],
    );
    lines(&said("name: b\nexport: {}"), &["2:1: export: no driver in here"]);
    lines(&said("# nothing"), &["1:1: the file is empty"]);
}

#[test]
fn a_connection_is_not_set_here() {
    lines(
        &said(
            "name: b\nendpoint: x:1\ntoken: secret\ntls: {}\ngrpcOptions: {}\nexport: {m: {type: \
               fake-machine}}",
        ),
        &[
            "2:1: endpoint: \"endpoint\" is not set here: the broker is named by --server, NATS_URL \
             or a context of the `nats` CLI",
            "3:1: token: \"token\" is not set here: credentials are given by --creds, --nkey or a \
             context of the `nats` CLI",
            "4:1: tls: \"tls\" is not set here: the broker's CA is given by --tlsca or a context of \
             the `nats` CLI",
            "5:1: grpcOptions: \"grpcOptions\" is not set here: there is no gRPC: remove it",
        ],
    );
}

#[test]
fn what_is_not_built_yet_says_so() {
    lines(
        &said(
            "name: b\nfailureDetection: {}\nexitOnLeaseEnd: false\nexport: \
               {m: {type: fake-machine}}",
        ),
        &[
            "2:1: failureDetection: \"failureDetection\" is not built yet",
            "3:1: exitOnLeaseEnd: \"exitOnLeaseEnd\" is not built yet",
        ],
    );
}

#[test]
fn another_sort_of_file_is_told() {
    lines(
        &said(
            "apiVersion: jmp-bus/v2\nkind: ClientConfig\nname: b\nexport: {m: {type: fake-machine}}",
        ),
        &[
            "1:13: apiVersion: expected jumpstarter.dev/v1alpha1 or jmp-bus/v1, got \"jmp-bus/v2\"; \
             did you mean \"jmp-bus/v1\"?",
            "2:7: kind: expected ExporterConfig, got \"ClientConfig\"",
        ],
    );
}

#[test]
fn children_and_methods_that_a_kind_has_not_are_told() {
    lines(
        &said_of(
            "  p: {type: fake-power, config: {url: x}, children: {}}\n  m: {type: fake-machine, \
                  children: {}}\n  c: {type: composite}\n",
        ),
        &[
            "3:43: export.p.children: this kind of driver has no children",
            "4:27: export.m.children: this kind of driver brings its own children",
            "5:3: export.c: a composite needs \"children\"",
        ],
    );
    lines(
        &said_of("  p: {type: fake-power, config: {url: x}, methods_description: {of: x}}\n"),
        &["3:65: export.p.methods_description.of: this driver has no method \"of\"; did you mean \
           \"off\"?"],
    );
    lines(
        &said_of("  p: {turn: x, config: {}, children: {m: {type: fake-machine}}}\n"),
        &[
            "3:7: export.p.turn: \"turn\" needs a \"type\"",
            "3:16: export.p.config: \"config\" needs a \"type\"",
        ],
    );
}

#[test]
fn a_kind_that_refuses_its_configuration_is_quoted_in_one_line() {
    lines(
        &said_of("  broken: {type: fake-shell}\n"),
        &["3:3: export.broken.config: no shell is called broken"],
    );
}

#[test]
fn damaged_yaml_says_where() {
    let said = said("name: b\nexport: [a\n");
    assert!(said.starts_with("exporter.yaml:"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    lines(
        &super::said("name: !!str b"),
        &["1:7: name: a tag (!…) has no meaning here: put text in quotes"],
    );
    lines(&super::said("a: 1\n---\nb: 2\n"), &["2:1: a second document: a file holds one"]);
    lines(&super::said("[a]: b"), &["1:1: a key is a text, not a list"]);
    lines(
        &super::said("a: {<<: b}"),
        &["1:5: a: merging (<<) is no part of YAML 1.2: write the keys"],
    );
}

#[test]
fn a_flood_of_mistakes_is_cut() {
    let keys: String = (0..3000).map(|n| format!("k{n}: 1\n")).collect();
    let said = said(&keys);
    assert_eq!(said.lines().count(), 1000);
    assert!(said.ends_with(" more problems)"), "{}", &said[said.len() - 200..]);
}

#[test]
fn labels_are_what_selectors_can_name_and_texts_are_no_books() {
    let (long, book) = ("x".repeat(254), "x".repeat(4097));
    lines(
        &said_of(&format!(
            "  m: {{type: fake-machine, labels: {{a b: c, 'd,e': f, long: {long}}}, \
             description: {book}}}\n"
        )),
        &[
            "3:36: export.m.labels.\"a b\": no selector could name it: use 1 to 253 of a-z, A-Z, 0-9, \
             '_', '-', '.', '/' and ':'",
            "3:44: export.m.labels.\"d,e\": no selector could name it: use 1 to 253 of a-z, A-Z, 0-9, \
             '_', '-', '.', '/' and ':'",
            "3:54: export.m.labels.long: the value is longer than 253 bytes",
            "3:330: export.m.description: the text is longer than 4096 bytes",
        ],
    );
    let many: String = (0..65).map(|n| format!("l{n}: x, ")).collect();
    lines(
        &said_of(&format!("  m: {{type: fake-machine, labels: {{{many}}}}}\n")),
        &["3:35: export.m.labels: 65 labels, where 64 are the most"],
    );
}
