//! Pairs with one value for each direction of a flow: forward, then backward.

use protocol::tcp::Direction;

/// The value for a direction.
pub(super) fn of<T>(pair: &[T; 2], direction: Direction) -> &T {
    let [forward, backward] = pair;
    match direction {
        Direction::Forward => forward,
        Direction::Backward => backward,
    }
}

/// The value for a direction, to change.
pub(super) fn of_mut<T>(pair: &mut [T; 2], direction: Direction) -> &mut T {
    let [forward, backward] = pair;
    match direction {
        Direction::Forward => forward,
        Direction::Backward => backward,
    }
}
