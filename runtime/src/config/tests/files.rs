use std::{fs, path::Path as FilePath};

use bus_schema::{DriverId, Path};

use super::{super::Config, GOOD, fake::opened, good, kinds, parse, state};
use crate::{Node, Role, Site};

fn at<'n>(root: &'n Node, path: &str) -> &'n Node {
    path.split('/').fold(root, |node, name| &node.children[name])
}

fn target(node: &Node) -> String {
    match &node.role {
        Role::Alias(path) => path.to_string(),
        Role::Driver { kind, .. } => panic!("a driver: {kind}"),
    }
}

#[test]
fn a_file_becomes_a_tree() {
    let config = good(GOOD);
    assert_eq!(config.name.as_str(), "bench-1");
    assert_eq!(config.description, "My bench");
    assert_eq!(config.labels["rack"], "3");
    assert_eq!(config.warnings, []);
    let names: Vec<_> = config.root.children.keys().collect();
    assert_eq!(names, ["dut", "power", "ssh", "vm", "vm_console"]);

    let power = at(&config.root, "power");
    assert_eq!(power.description, "Main rail");
    assert_eq!(power.labels["board"], "rpi4");
    assert_eq!(power.methods_description["on"], "Energise the DUT");
    let Role::Driver { kind, id, turn, .. } = &power.role else { panic!("{power:?}") };
    assert_eq!(kind, "fake-power");
    assert_eq!(id.unwrap().to_string(), "00000000-0000-4000-8000-000000000001");
    assert_eq!(turn.as_deref(), Some("relay-board"));

    let composite = |node: &Node| match &node.role {
        Role::Driver { kind, .. } => kind == "composite",
        Role::Alias(_) => false,
    };
    assert!(composite(&config.root) && composite(at(&config.root, "dut")));
    assert!(matches!(at(&config.root, "ssh/tcp").role, Role::Driver { .. }));
}

#[test]
fn a_ref_leads_to_the_driver_at_the_end() {
    let config = good(GOOD);
    assert_eq!(target(at(&config.root, "dut/main_power")), "power");
    assert_eq!(target(at(&config.root, "dut/again")), "power", "a ref to a ref");
    assert_eq!(target(at(&config.root, "vm_console")), "vm/console", "what a kind brings");
}

#[tokio::test]
async fn a_driver_opens_with_its_configuration_each_time() {
    let config = good(GOOD);
    for _restart in 0..2 {
        let text = opened(at(&config.root, "power")).await;
        assert!(text.contains(r#"url: "/dev/ttyUSB0", port: 7"#), "{text}");
        assert!(text.contains("delay: Some(90s), mode: Some(On)"), "{text}");
        let place = "at bench-1/power 00000000-0000-4000-8000-000000000001";
        assert!(text.ends_with(place), "{text}");
    }
}

#[test]
fn jumpstarter_keeps_uuid_and_labels_inside_config() {
    let config = good(
        "name: b\nexport:\n  p:\n    type: fake-power\n    config:\n      url: x\n      log_level: \
         DEBUG\n      labels: {a: b}\n      uuid: 00000000-0000-4000-8000-000000000001\n",
    );
    let node = at(&config.root, "p");
    assert_eq!(node.labels["a"], "b");
    assert!(matches!(&node.role, Role::Driver { id: Some(_), .. }));
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    let log_level = "exporter.yaml:7:7: export.p.config.log_level: ignored: what is logged is set \
                     for the whole exporter";
    assert_eq!(warnings, [log_level]);
}

#[test]
fn a_namespace_is_a_warning() {
    let config = good("metadata: {name: b, namespace: default}\nexport: {m: {type: fake-machine}}");
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    let namespace = "exporter.yaml:1:21: metadata.namespace: ignored: there are no namespaces, \
                     labs are kept apart by NATS accounts";
    assert_eq!(warnings, [namespace]);
}

#[test]
fn kinds_that_run_commands_are_told() {
    let config = good("name: b\nexport: {a: {children: {s: {type: fake-shell}}}}");
    assert_eq!(config.runs_commands, ["a/s".parse::<Path>().unwrap()]);
}

#[test]
fn an_anchor_stands_for_what_it_names() {
    let config = good(
        "name: b\nexport:\n  a: {type: fake-power, config: &c {url: x}}\n  b: {type: fake-power, \
         config: *c}\n",
    );
    assert_eq!(config.root.children.len(), 2);
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_are_no_mistake() {
    good(&format!("\u{feff}{}", GOOD.replace('\n', "\r\n")));
}

#[test]
fn a_later_kind_takes_the_place_of_an_earlier_one() {
    let mut later = kinds().get("fake-machine").unwrap().clone();
    later.help = "another";
    let kinds = kinds().with(later);
    assert_eq!(kinds.get("fake-machine").unwrap().help, "another");
    assert_eq!(kinds.iter().filter(|kind| kind.name == "fake-machine").count(), 1);
    assert_eq!(kinds.get("fake.driver.Power").unwrap().name, "fake-power");
    assert_eq!(kinds.near("fake_powr"), Some("fake-power"));
    assert_eq!(kinds.near("camera"), None);
}

#[test]
fn a_drivers_directory_is_its_own_and_made_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new("b".parse().unwrap(), "dut/..".parse().unwrap(), dir.path());
    let expected = dir.path().join(site.id.to_string());
    assert_eq!(site.state_path(), expected);
    assert!(!expected.exists());
    assert_eq!(site.state_dir().unwrap(), expected);
    assert!(expected.is_dir());
    let id: DriverId = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    assert_eq!(site.clone().pinned(id).state_path(), dir.path().join(id.to_string()));
    assert_ne!(site.child("x").unwrap().state_path(), expected);
}

fn read(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("exporter.yaml");
    fs::write(&file, bytes).unwrap();
    let errors = Config::read(&file, &kinds(), &state()).unwrap_err().to_string();
    errors.replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn a_file_that_is_no_text_says_where() {
    let said = read(b"name: b\n# gr\xc3\xbc\xdfe\n");
    assert_eq!(said, "exporter.yaml:2:6: the file is not UTF-8 from here on");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let said = "exporter.yaml:1:1: the file is larger than 4 MiB";
    assert_eq!(read(&vec![b'#'; (4 << 20) + 1]), said);
    assert_eq!(read(&vec![0xff; (4 << 20) + 1]), said);
    assert_eq!(parse(&"#".repeat((4 << 20) + 1)).unwrap_err().to_string(), said);
    assert!(Config::read(FilePath::new("/dev/zero"), &kinds(), &state()).is_err());
}

#[test]
fn a_file_that_is_not_there_is_an_error_of_its_own() {
    let errors = Config::read(FilePath::new("/none/x.yaml"), &kinds(), &state()).unwrap_err();
    let said = "/none/x.yaml:1:1: cannot be read: No such file or directory (os error 2)";
    assert_eq!(errors.to_string(), said);
}
