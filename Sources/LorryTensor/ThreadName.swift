import CKernels

/// Names the calling thread, as the system's tools show it: at most 15 bytes. Foundation's
/// `Thread.name` does not reach the system on Linux.
public func nameThread(_ name: String) { ck_name_thread(name) }

/// The calling thread no longer interrupts others when it wakes up, but waits for its fair share of
/// the processors. For work in bursts beside threads that compute in lockstep.
public func makeThreadPatient() { ck_make_thread_patient() }
