//! What goes wrong on purpose.

/// A fault. Counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The N-th allocation of device memory fails.
    Allocation(u64),
    /// The N-th kernel, or operator, fails.
    Launch(u64),
    /// The device is gone from the N-th call on.
    DeviceLost(u64),
    /// Every kernel whose name begins so fails, which shows who uses it.
    Kernel(&'static str),
    /// From the N-th replay on, the last of what was recorded does not happen.
    Replay(u64),
    /// The N-th group of communicators cannot be made.
    Group(u64),
    /// The N-th call that queues a collective fails.
    Collective(u64),
    /// The N-th collective of a group fails while it runs, on all its ranks: they go on without its result.
    Sum(u64),
    /// The N-th product that a library is asked for is refused.
    Product(u64),
    /// From the N-th question on, a library has nothing for the product that it is asked about.
    Algorithm(u64),
}

impl Fault {
    /// `alloc:N`, `launch:N`, `lost:N`, `replay:N`, `group:N`, `collective:N`, `sum:N`,
    /// `product:N`, `algorithm:N` or `kernel:NAME`.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, count) = text.split_once(':')?;
        if kind == "kernel" {
            // There is one machine per process, which lasts to its end.
            return (!count.is_empty()).then(|| Self::Kernel(String::leak(count.to_owned())));
        }
        let count = count.parse().ok().filter(|count| *count > 0)?;
        Some(match kind {
            "alloc" => Self::Allocation(count),
            "launch" => Self::Launch(count),
            "lost" => Self::DeviceLost(count),
            "replay" => Self::Replay(count),
            "group" => Self::Group(count),
            "collective" => Self::Collective(count),
            "sum" => Self::Sum(count),
            "product" => Self::Product(count),
            "algorithm" => Self::Algorithm(count),
            _ => return None,
        })
    }
}

/// Counts what happens, and says when it is to fail: each method answers with what to tell the developer.
#[derive(Debug, Clone, Default)]
pub struct Injection {
    fault: Option<Fault>,
    num_calls: u64,
    num_allocations: u64,
    num_launches: u64,
    num_replays: u64,
    num_groups: u64,
    num_collectives: u64,
    num_sums: u64,
    num_products: u64,
    num_questions: u64,
}

impl Injection {
    /// Nothing has happened yet.
    pub fn new(fault: Option<Fault>) -> Self {
        Self { fault, ..Self::default() }
    }

    /// Before every call. What is lost stays lost.
    pub fn call(&mut self) -> Option<String> {
        self.num_calls += 1;
        match self.fault {
            Some(Fault::DeviceLost(first)) if self.num_calls >= first => {
                Some(format!("injected: the device is lost from call {first} on"))
            }
            _ => None,
        }
    }

    /// True for the call with which the device went.
    pub fn is_first_lost_call(&self) -> bool {
        self.fault == Some(Fault::DeviceLost(self.num_calls))
    }

    /// Before every allocation of device memory.
    pub fn allocation(&mut self) -> Option<String> {
        self.num_allocations += 1;
        let number = self.num_allocations;
        (self.fault == Some(Fault::Allocation(number))).then(|| format!("injected: allocation {number} fails"))
    }

    /// Before every kernel, or operator, that runs.
    pub fn launch(&mut self, kernel: &str) -> Option<String> {
        self.num_launches += 1;
        let number = self.num_launches;
        match self.fault {
            Some(Fault::Launch(wanted)) if wanted == number => {
                Some(format!("injected: launch {number} ({kernel}) fails"))
            }
            Some(Fault::Kernel(name)) if kernel.starts_with(name) => Some(format!("injected: kernel {kernel} fails")),
            _ => None,
        }
    }

    /// Before every replay: true where its last op is not to happen.
    pub fn is_replay_cut_short(&mut self) -> bool {
        self.num_replays += 1;
        matches!(self.fault, Some(Fault::Replay(first)) if self.num_replays >= first)
    }

    /// Before communicators are made.
    pub fn group(&mut self) -> Option<String> {
        self.num_groups += 1;
        let number = self.num_groups;
        (self.fault == Some(Fault::Group(number))).then(|| format!("injected: group {number} fails"))
    }

    /// Before a collective is queued.
    pub fn collective(&mut self) -> Option<String> {
        self.num_collectives += 1;
        let number = self.num_collectives;
        (self.fault == Some(Fault::Collective(number))).then(|| format!("injected: collective {number} fails"))
    }

    /// Before a group's collective runs, to which all its ranks have come.
    pub fn sum(&mut self) -> Option<String> {
        self.num_sums += 1;
        let number = self.num_sums;
        (self.fault == Some(Fault::Sum(number))).then(|| format!("injected: sum {number} fails"))
    }

    /// Before a library's product is queued.
    pub fn product(&mut self) -> Option<String> {
        self.num_products += 1;
        let number = self.num_products;
        (self.fault == Some(Fault::Product(number))).then(|| format!("injected: product {number} is refused"))
    }

    /// Before a library is asked how it computes a product: true where it has nothing for it.
    pub fn is_without_algorithm(&mut self) -> bool {
        self.num_questions += 1;
        matches!(self.fault, Some(Fault::Algorithm(first)) if self.num_questions >= first)
    }

    /// Kernels that have run, with the one that is about to.
    pub fn num_launches(&self) -> u64 {
        self.num_launches
    }
}
