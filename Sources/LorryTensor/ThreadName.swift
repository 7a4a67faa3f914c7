import CKernels

/// Names the calling thread, as the system's tools show it: at most 15 bytes. Foundation's
/// `Thread.name` does not reach the system on Linux.
public func nameThread(_ name: String) { ck_name_thread(name) }
