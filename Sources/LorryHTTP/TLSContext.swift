import NIOSSL

/// Why the server could not start.
public struct HTTPServerError: Error, CustomStringConvertible {
    public let message: String
    public var description: String { message }
}

extension TLSFiles {
    /// Reads both files and makes a context for TLS 1.2 and later that offers h2 and http/1.1.
    ///
    /// - Throws: `HTTPServerError` that names the file at fault.
    package func makeContext() throws -> NIOSSLContext {
        let chain = try reading(certificateChain, as: "TLS certificate chain") {
            let chain = try NIOSSLCertificate.fromPEMFile(certificateChain)
            guard !chain.isEmpty else { throw HTTPServerError(message: "it has no certificate") }
            return chain
        }
        let key = try reading(privateKey, as: "TLS private key") {
            try NIOSSLPrivateKey(file: privateKey, format: .pem)
        }
        var configuration = TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
        configuration.minimumTLSVersion = .tlsv12
        configuration.applicationProtocols = ["h2", "http/1.1"]
        do {
            return try NIOSSLContext(configuration: configuration)
        } catch {
            throw HTTPServerError(
                message: "TLS private key \(privateKey) does not fit \(certificateChain): \(error)")
        }
    }

    private func reading<Value>(
        _ path: String, as role: String, _ body: () throws -> Value
    ) throws -> Value {
        do {
            return try body()
        } catch {
            throw HTTPServerError(message: "cannot use the \(role) \(path): \(error)")
        }
    }
}
