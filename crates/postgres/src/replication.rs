//! The commands of a replication connection.
//!
//! Promise: every command is built and its answer read in one place.
//! Not here: the wire (wire, connection), the stream's state machine.
