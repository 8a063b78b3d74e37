//! Has the mount helper open the sockets of `netns:` sources, for a daemon that may not enter other
//! namespaces.

use capture::source::{self, NamespaceRefusal, NamespaceSockets};
use mount_helper::netns::{NetnsDescription, NetnsRefusal, NetnsSockets};

use crate::fuse::DeviceHandoff;

/// Has this helper open sockets; only the first call counts.
pub(crate) fn open_namespaces_with(helper: DeviceHandoff) {
    source::open_namespaces_with(Box::new(move |namespace, interface| {
        match helper.open_netns(namespace, interface) {
            Ok(NetnsSockets { packet, route, description }) => {
                let NetnsDescription { name, index, identity } = description;
                Ok(NamespaceSockets { packet, route, name, index, identity })
            }
            Err(NetnsRefusal::NoNamespace(have)) => Err(NamespaceRefusal::NoNamespace(have)),
            Err(NetnsRefusal::NoInterface(have)) => Err(NamespaceRefusal::NoInterface(have)),
            Err(NetnsRefusal::Refused(why)) => Err(NamespaceRefusal::Refused(why)),
        }
    }));
}
