//! A real Kubernetes control plane, and a node on which pods are local processes, for tests.
