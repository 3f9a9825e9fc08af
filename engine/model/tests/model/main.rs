//! The models as tests: the protocol as written holds, and every broken variant of it is caught.

mod broken;
mod failover;
mod holds;
mod promotion;
mod twins;
