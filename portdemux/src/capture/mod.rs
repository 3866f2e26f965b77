//! Frames from capture files.
