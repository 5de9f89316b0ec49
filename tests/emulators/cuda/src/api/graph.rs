//! Captured work.

use super::{entries, write};
use crate::abi::status;
use crate::driver::{Failure, Kind};
use crate::stream::Op;

entries! {
    fn cuGraphInstantiateWithFlags(driver, executable: *mut u64, graph: u64, flags: u64) {
        if flags != 0 {
            return Err(Failure::new(status::NOT_SUPPORTED, format!("flags {flags:#x} are not modelled")));
        }
        let Some(graph) = driver.context()?.graphs.get(&graph).cloned() else {
            return Err(Failure::new(status::INVALID_HANDLE, format!("{graph:#x} is no live graph")));
        };
        let handle = driver.new_handle(Kind::GraphExec);
        driver.context()?.executable_graphs.insert(handle, graph);
        write(executable, handle)
    }

    fn cuGraphLaunch(driver, executable: u64, stream: u64) {
        let Some(graph) = driver.context()?.executable_graphs.get(&executable).cloned() else {
            return Err(Failure::new(status::INVALID_HANDLE, format!("{executable:#x} is no live executable graph")));
        };
        driver.push(stream, Op::Graph(graph.ops))
    }

    fn cuGraphDestroy(driver, graph: u64) {
        match driver.context()?.graphs.remove(&graph) {
            Some(_) => Ok(()),
            None => Err(Failure::new(status::INVALID_HANDLE, format!("{graph:#x} is no live graph"))),
        }
    }

    fn cuGraphExecDestroy(driver, executable: u64) {
        match driver.context()?.executable_graphs.remove(&executable) {
            Some(_) => Ok(()),
            None => Err(Failure::new(status::INVALID_HANDLE, format!("{executable:#x} is no live executable graph"))),
        }
    }
}
