//! What jmp-bus does to a device.
