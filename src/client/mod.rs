//! The client: requests over pooled connections to one endpoint or a fleet of them.
