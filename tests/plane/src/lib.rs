//! A real Kubernetes control plane, and a node on which pods are local processes, for tests.
//!
//! ```text
//! one network namespace, one test program
//! ├─ etcd, kube-apiserver, kube-controller-manager      control_plane: the real ones, built by tests/setup/plane.sh
//! ├─ node                                               binds pods and runs each container as a process
//! │  ├─ pod 10.244.0.1   its own view of the files: volumes, ServiceAccount token
//! │  └─ pod 10.244.0.2   if it asks for it, in a network of its own that can be cut off
//! └─ tests                                              suite: a namespace for each, told in full when one fails
//! ```
//!
//! What is real: the API server with RBAC and admission, and the controllers of Deployments, EndpointSlices, garbage and so on. What is
//! not: there are no ClusterIPs (a client picks an endpoint, see [`Namespace::endpoints`]), no DNS, no images.

pub mod network;
pub mod objects;
pub mod suite;

mod control_plane;
mod dump;
mod keys;
mod launch;
mod namespace;
mod node;
mod plane;

pub use control_plane::ApiServerOutage;
pub use namespace::Namespace;
pub use node::{Cut, Images, Node, NodeSpec};
pub use plane::{Options, Plane, Times};
pub use suite::Suite;

pub mod in_process;
