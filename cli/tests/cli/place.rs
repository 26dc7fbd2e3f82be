//! `jmp-bus place`, and places where a driver is named.

use serde_json::json;

use crate::lab::Lab;

const PLACES: &str = "
rpi-1:
  description: by the door
  labels: {board: rpi4}
  power: local/power
  relay: local
nuc: {power: local/spare, serial: elsewhere/uart0}
";

#[tokio::test]
async fn a_driver_of_a_place_is_an_address_in_every_command() {
    let lab = Lab::start().await;
    let file = lab.home.path().join("places.yaml");
    std::fs::write(&file, PLACES).unwrap();
    let applied = lab.run(&["place", "apply", file.to_str().unwrap()]).await;
    let note = "jmp-bus: @nuc/serial: no exporter has a driver elsewhere/uart0 (yet)\n";
    assert_eq!(applied.err, note);
    assert_eq!(applied.ok(), "@rpi-1 applied\n@nuc applied\n");

    let listed = lab.run(&["place", "list", "-l", "board=rpi4"]).await.ok();
    let shown = "@rpi-1  board=rpi4  by the door\n  power  local/power\n  relay  local\n";
    assert_eq!(listed, shown);
    let json = lab.run(&["place", "list", "-o", "json"]).await.json();
    let roles = json!({ "power": "local/spare", "serial": "elsewhere/uart0" });
    assert_eq!((&json[0]["name"], &json[0]["roles"]), (&json!("nuc"), &roles));

    lab.run(&["call", "@rpi-1/power", "cycle", "2s"]).await.ok();
    lab.run(&["call", "@rpi-1/relay/power", "status"]).await.ok();
    assert_eq!(lab.run(&["stream", "@nuc/power", "say"]).await.ok(), "hello\nthere\n");
    let described = lab.run(&["describe", "@rpi-1/power"]).await.ok();
    assert!(described.starts_with("local/power  "), "{described}");
    assert_eq!(lab.run(&["logs", "@rpi-1/power"]).await.ok(), "");

    let wrong = lab.run(&["call", "@rpi-2/power", "on"]).await.failed(10);
    assert!(wrong.contains("there is no place @rpi-2\nhint: did you mean @rpi-1?"), "{wrong}");
    let wrong = lab.run(&["call", "@rpi-1/powre", "on"]).await.failed(10);
    assert!(wrong.contains("no role \"powre\": it has power, relay"), "{wrong}");
    assert!(wrong.contains("did you mean @rpi-1/power?"), "{wrong}");
    let wrong = lab.run(&["call", "@rpi-1", "on"]).await.failed(2);
    assert!(wrong.contains("name one as @rpi-1/role"), "{wrong}");

    assert_eq!(lab.run(&["place", "remove", "@nuc"]).await.ok(), "@nuc removed\n");
    lab.run(&["place", "remove", "nuc"]).await.failed(10);
    lab.run(&["call", "@nuc/power", "on"]).await.failed(10);
    assert_eq!(lab.run(&["place", "list", "-o", "json"]).await.json().as_array().unwrap().len(), 1);
    lab.end().await;
}

#[tokio::test]
async fn a_mistake_in_a_file_of_places_is_told_with_its_line_and_nothing_is_applied() {
    let lab = Lab::start().await;
    let file = lab.home.path().join("places.yaml");
    std::fs::write(&file, PLACES.replace("local/spare", "Local/spare")).unwrap();
    let wrong = lab.run(&["place", "apply", file.to_str().unwrap()]).await.failed(16);
    assert!(wrong.contains("places.yaml:7:14: nuc.power: "), "{wrong}");
    assert_eq!(lab.run(&["place", "list", "-o", "json"]).await.ok(), "[]\n");
    lab.end().await;
}
