use crate::{attempt::Attempt, context::Context};
pub(crate) async fn follow(
    _context: &Context,
    _attempt: &Attempt,
    done: &tokio_util::sync::CancellationToken,
) {
    done.cancelled().await
}
pub(crate) async fn finish(_context: &Context, _attempt: &Attempt) -> usize {
    0
}
