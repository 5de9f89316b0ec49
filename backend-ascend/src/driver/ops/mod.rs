//! Operators, one safe function each. Shapes are in the doc comments; T tokens, N heads, E experts, K experts per token.

mod attention;
mod elementwise;
mod moe;
mod products;
mod prolog;

pub(crate) use attention::{Attention, Keys};
pub(crate) use moe::{GatingRules, GroupedProduct, Routed};
pub(crate) use prolog::{KeyPart, MlaProlog};

/// Plans an operator with its first function and queues it with its second one.
///
/// `run!(stream, aclnnFoo, aclnnFooGetWorkspaceSize, a, b)` calls the first with `a, b` and two places for what it answers.
/// The expressions must be descriptors' handles that are alive, or null where the operator takes null.
macro_rules! run {
    ($stream:ident, $name:ident, $plan:ident, $($argument:expr),+ $(,)?) => {{
        let context = $stream.context.clone();
        let libraries = context.libraries();
        let both = |library: &$crate::driver::sys::opapi::OpApi| {
            Some((*library.$plan.as_ref().ok()?, *library.$name.as_ref().ok()?))
        };
        // Operators are looked for before anything is prepared; one that is gone by now answers like one that fails.
        let Some((plan, run)) = libraries.operators.iter().find_map(both) else {
            return Err(libraries.error(stringify!($name), $crate::driver::ops::NOT_THERE));
        };
        context.bind()?;
        let (mut workspace_bytes, mut executor) = (0, std::ptr::null_mut());
        // SAFETY: the arguments are live descriptors; both results go to places that outlive the call.
        let status = unsafe { plan($($argument,)+ &raw mut workspace_bytes, &raw mut executor) };
        libraries.check(stringify!($plan), status)?;
        $stream.queue(stringify!($name), run, workspace_bytes, executor)
    }};
}
use run;

/// Status of an operator that the libraries lack; none of CANN's.
const NOT_THERE: i32 = -1;
