//! Time, asked for through a port.
