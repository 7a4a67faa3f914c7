import Testing

/// Tests of the built program as its users meet it: a process and a socket.
///
/// One after the other, since each starts a server that uses every core.
@Suite(.serialized) enum EndToEndTests {}
