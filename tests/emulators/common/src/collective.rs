//! Sums over devices: what a rank brings to one, whether the ranks agree, and the sum itself.

use half::bf16;

use crate::memory::{load, store};

/// What is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Element {
    Bf16,
    F32,
}

impl Element {
    /// Bytes of one, which it is aligned to.
    pub fn num_bytes(self) -> usize {
        match self {
            Element::Bf16 => size_of::<bf16>(),
            Element::F32 => size_of::<f32>(),
        }
    }

    fn load(self, from: u64) -> f32 {
        match self {
            Element::Bf16 => bf16::from_bits(load(from)).to_f32(),
            Element::F32 => load(from),
        }
    }

    fn store(self, to: u64, value: f32) {
        match self {
            Element::Bf16 => store(to, bf16::from_f32(value).to_bits()),
            Element::F32 => store(to, value),
        }
    }
}

/// One rank's part in a sum: so many values from one device address to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Call {
    pub from: u64,
    pub to: u64,
    pub count: usize,
    pub element: Element,
}

impl Call {
    /// Bytes that it reads, and as many that it writes.
    pub fn num_bytes(&self) -> usize {
        self.count * self.element.num_bytes()
    }

    /// What is wrong with its addresses, whatever lies there.
    pub fn misplaced(&self) -> Option<String> {
        let Self { from, to, element, .. } = *self;
        for (what, address) in [("a sum of", from), ("a sum to", to)] {
            if address % element.num_bytes() as u64 != 0 {
                return Some(format!("{what} {element:?} at {address:#x}, which is not aligned to them"));
            }
        }
        let num_bytes = self.num_bytes();
        let is_apart = from == to || from.abs_diff(to) >= num_bytes as u64;
        (!is_apart).then(|| format!("a sum of {num_bytes} bytes at {from:#x} to {to:#x}, which lies in them"))
    }
}

/// What is not the same on all ranks.
pub fn disagreement(calls: &[Call]) -> Option<String> {
    let describe = |call: &Call| format!("sums {} {:?}", call.count, call.element);
    let is_equal = |call: &Call| (call.count, call.element) == (calls[0].count, calls[0].element);
    let (rank, other) = calls.iter().enumerate().find(|(_, call)| !is_equal(call))?;
    Some(format!("rank 0 {}, rank {rank} {}", describe(&calls[0]), describe(other)))
}

/// In f32 and in the order of ranks, rounded once: the same bits everywhere. The ranks agree, and their addresses were
/// checked.
pub fn sum(calls: &[Call]) {
    for i in 0..calls.first().map_or(0, |call| call.count) {
        let at = |address: u64, element: Element| address + (i * element.num_bytes()) as u64;
        let values = calls.iter().map(|call| call.element.load(at(call.from, call.element)));
        let total = values.reduce(|sum, value| sum + value).unwrap_or_default();
        calls.iter().for_each(|call| call.element.store(at(call.to, call.element), total));
    }
}
