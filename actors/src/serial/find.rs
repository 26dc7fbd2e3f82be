//! Which device belongs to a USB adapter.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The device file of the adapter with this serial number, and of its interface of this number
/// where it has several.
pub(super) fn by_usb_serial(
    sys_class_tty: &Path,
    serial: &str,
    interface: Option<u16>,
) -> io::Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(sys_class_tty)? {
        let entry = entry?;
        let Some(usb) = usb_of(&entry.path()) else { continue };
        if usb.serial == serial && interface.is_none_or(|wanted| usb.interface == Some(wanted)) {
            found.push(Path::new("/dev").join(entry.file_name()));
        }
    }
    found.sort();
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => {
            let text = format!("no USB adapter with serial number {serial:?} is plugged in");
            Err(io::Error::new(io::ErrorKind::NotFound, text))
        }
        several => {
            let text = format!("{several:?} have serial number {serial:?}: give usb_interface");
            Err(io::Error::other(text))
        }
    }
}

struct Usb {
    serial: String,
    interface: Option<u16>,
}

/// What USB knows of a terminal: the nearest directory upwards that has the number.
fn usb_of(tty: &Path) -> Option<Usb> {
    let device = fs::canonicalize(tty.join("device")).ok()?;
    let number = |dir: &Path| {
        let text = fs::read_to_string(dir.join("bInterfaceNumber")).ok()?;
        u16::from_str_radix(text.trim(), 16).ok()
    };
    let interface = device.ancestors().find_map(number);
    let serial = |dir: &Path| {
        // Other kinds of device have a `serial` too.
        dir.join("idVendor").exists().then(|| fs::read_to_string(dir.join("serial")).ok())?
    };
    let serial = device.ancestors().find_map(serial)?.trim().to_owned();
    Some(Usb { serial, interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal as the kernel shows it: a link into the device's directory.
    fn plug(sys: &Path, tty: &str, usb: &str, serial: &str, interface: &str) -> io::Result<()> {
        let adapter = sys.join("devices/usb1").join(usb);
        let port = adapter.join(format!("{usb}:1.{interface}")).join(tty);
        fs::create_dir_all(&port)?;
        fs::write(adapter.join("idVendor"), "0403\n")?;
        fs::write(adapter.join("serial"), format!("{serial}\n"))?;
        fs::write(port.join("../bInterfaceNumber"), format!("{interface}\n"))?;
        let class = sys.join("class/tty").join(tty);
        fs::create_dir_all(&class)?;
        std::os::unix::fs::symlink(port, class.join("device"))
    }

    #[test]
    fn an_adapter_is_found_by_its_serial_number() -> io::Result<()> {
        let sys = tempfile::tempdir()?;
        let class = sys.path().join("class/tty");
        fs::create_dir_all(class.join("tty0"))?;
        plug(sys.path(), "ttyUSB0", "1-1", "FTA1", "00")?;
        plug(sys.path(), "ttyUSB1", "1-2", "FTB2", "00")?;
        plug(sys.path(), "ttyUSB2", "1-2", "FTB2", "01")?;

        let find = |serial, interface| by_usb_serial(&class, serial, interface);
        assert_eq!(find("FTA1", None)?, Path::new("/dev/ttyUSB0"));
        assert_eq!(find("FTB2", Some(1))?, Path::new("/dev/ttyUSB2"));
        let several = find("FTB2", None).unwrap_err().to_string();
        assert!(several.contains("ttyUSB1") && several.contains("usb_interface"), "{several}");
        let none = find("FTC3", None).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::NotFound);
        Ok(())
    }
}
