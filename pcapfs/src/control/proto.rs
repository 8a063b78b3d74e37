//! The code that build.rs generates from proto/pcapfs/control/v1/control.proto.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::missing_errors_doc,
    clippy::or_fun_call,
    clippy::use_self,
    unused_qualifications,
    dead_code,
    reason = "generated code is not written to our taste"
)]

pub(crate) mod pcapfs {
    pub(crate) mod control {
        pub(crate) mod v1 {
            tonic::include_proto!("pcapfs.control.v1");
        }
    }
}
