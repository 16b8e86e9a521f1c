//! The node agent, against an API server, on a node laid out as kubelet does.

mod node;
