//! Gives the library the name under which the runtime is looked up.
#![allow(clippy::print_stdout, reason = "a build script speaks to cargo")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Elsewhere the runtime has another name, and tests/rocm.rs does not run.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libamdhip64.so.7");
    }
}
