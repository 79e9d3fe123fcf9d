fn main() {
    // For this crate alone: as a compiler flag it would reach every dependency.
    println!("cargo::rustc-cfg=loom");
}
