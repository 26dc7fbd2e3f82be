//! QEMU's command line.

use std::{fs::OpenOptions, path::Path};

use bus_schema::Fault;

use super::{Accel, DiskFormat, QemuConfig, machine::Sizes};

/// The words of the command. QEMU connects to the sockets in `run` that exist, and makes others.
pub(super) fn words(config: &QemuConfig, sizes: &Sizes, run: &Path) -> Vec<String> {
    let socket = |name: &str| escaped(&run.join(name).display().to_string());
    let mut words = vec![config.program()];
    let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
    if let Some(machine) = config.machine() {
        add("-machine", machine);
    }
    if let Some(cpu) = config.cpu() {
        add("-cpu", cpu);
    }
    let accel = match config.accel {
        Accel::Tcg => "tcg",
        Accel::Kvm => "kvm",
    };
    add("-accel", accel.to_owned());
    add("-smp", config.smp.to_string());
    add("-m", sizes.memory.clone());
    add("-display", "none".to_owned());
    add("-vnc", format!("unix:{}", socket("vnc.sock")));
    add("-chardev", format!("socket,id=console,path={}", socket("console.sock")));
    add("-serial", "chardev:console".to_owned());
    add("-chardev", format!("socket,id=qmp,path={}", socket("qmp.sock")));
    add("-mon", "chardev=qmp,mode=control".to_owned());
    add("-qmp", format!("unix:{},server=on,wait=off", socket("monitor.sock")));
    add("-netdev", netdev(config));
    add("-device", "virtio-net-pci,netdev=net0,romfile=".to_owned());
    let files = [("-bios", &config.bios), ("-kernel", &config.kernel), ("-initrd", &config.initrd)];
    for (option, file) in files {
        if let Some(file) = file {
            add(option, file.display().to_string());
        }
    }
    if let Some(append) = &config.append {
        add("-append", append.clone());
    }
    for (at, disk) in config.disks.iter().enumerate() {
        let (file, format) = (escaped(&disk.file.display().to_string()), disk.format.as_str());
        let snapshot = if disk.snapshot { "on" } else { "off" };
        add(
            "-drive",
            format!("if=none,id=disk{at},file={file},format={format},snapshot={snapshot}"),
        );
        add("-device", format!("virtio-blk-pci,drive=disk{at}"));
    }
    words.extend(config.extra_args.iter().cloned());
    words
}

/// The machine's network: behind a router of QEMU's own. Port 0 lets the kernel choose.
fn netdev(config: &QemuConfig) -> String {
    let mut text = format!("user,id=net0,hostname={}", escaped(&config.hostname));
    for to in config.hostfwd.values() {
        text += &format!(",hostfwd=tcp:127.0.0.1:{}-:{}", to.hostport, to.guestport);
    }
    text
}

/// A comma is doubled, as it otherwise ends a value.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

/// Makes the first disk as large as is wanted. It never gets smaller.
pub(super) fn resize_disk(config: &QemuConfig, sizes: &Sizes) -> Result<(), Fault> {
    let (Some(size), Some(disk)) = (&sizes.disk, config.disks.first()) else { return Ok(()) };
    let bytes = bytes_of(size).map_err(Fault::argument)?;
    if disk.format != DiskFormat::Raw {
        let text = "disk_size is for raw images; resize others with qemu-img";
        return Err(Fault::unsupported(text));
    }
    let named = |error| Fault::device(format_args!("{}: {error}", disk.file.display()));
    let file = OpenOptions::new().write(true).open(&disk.file).map_err(named)?;
    let now = file.metadata().map_err(named)?.len();
    if bytes < now {
        let text = format!("the disk has {now} bytes and is not made smaller ({size})");
        return Err(Fault::argument(text));
    }
    file.set_len(bytes).map_err(named)
}

/// A size in QEMU's words: `512M`, `20G`.
pub(super) fn bytes_of(size: &str) -> Result<u64, String> {
    let (number, unit) = match size.strip_suffix(|c: char| c.is_ascii_alphabetic()) {
        Some(number) => (number, &size[number.len()..]),
        None => (size, "M"),
    };
    let shift = match unit {
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => 64,
    };
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = number.parse::<u64>().ok().filter(|_| digits);
    let bytes = bytes.and_then(|n| n.checked_mul(1u64.checked_shl(shift)?));
    bytes.filter(|bytes| (1 << 20..=1 << 50).contains(bytes)).ok_or_else(|| {
        format!("{size:?} is no size from 1M up: write a number and K, M, G or T, as in \"512M\"")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_and_a_unit() {
        assert_eq!(bytes_of("512M"), Ok(512 << 20));
        assert_eq!(bytes_of("20G"), Ok(20 << 30));
        assert_eq!(bytes_of("64"), Ok(64 << 20));
        for wrong in ["", "M", "-1G", "+1G", "1.5G", "1 G", "0", "1B", "9999999999999T", "1K", "١M"]
        {
            assert!(bytes_of(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_comma_in_a_path_stays_one() {
        let mut config = QemuConfig::default();
        config.disks.push(super::super::Disk {
            file: "/img/a,b.raw".into(),
            format: DiskFormat::Raw,
            snapshot: false,
        });
        let sizes = Sizes { memory: "1G".to_owned(), disk: None };
        let words = words(&config, &sizes, Path::new("/run")).join(" ");
        assert!(words.contains("file=/img/a,,b.raw,format=raw"), "{words}");
    }

    #[test]
    fn a_disk_grows_and_never_shrinks() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("disk.img");
        std::fs::write(&file, vec![0; 2 << 20])?;
        let disk = super::super::Disk { file, format: DiskFormat::Raw, snapshot: false };
        let config = QemuConfig { disks: vec![disk.clone()], ..QemuConfig::default() };
        let sizes = |size: &str| Sizes { memory: String::new(), disk: Some(size.to_owned()) };
        resize_disk(&config, &sizes("4M"))?;
        assert_eq!(std::fs::metadata(&disk.file)?.len(), 4 << 20);
        let fault = resize_disk(&config, &sizes("1M")).unwrap_err();
        assert!(fault.text.contains("not made smaller"), "{fault}");
        Ok(())
    }
}
