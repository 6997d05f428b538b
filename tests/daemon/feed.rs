//! Lost, late and missing ZMQ messages.
