import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL

/// Where a running server is, and with which key; from flags or the environment.
struct ServerAddress: Sendable {
    let host: String
    let port: Int
    let isSecure: Bool
    /// Put in front of every route, without a slash at its end.
    let pathPrefix: String
    let apiKey: String?
    /// Certificates to trust, in PEM format, instead of the system's.
    let authorityFile: String?

    /// - Throws: `ClientError` where the URL is no http or https URL with a host.
    init(_ text: String, apiKey: String?, authorityFile: String?) throws(ClientError) {
        guard let url = URLComponents(string: text), let scheme = url.scheme?.lowercased(),
            ["http", "https"].contains(scheme), let host = url.host, !host.isEmpty
        else {
            throw ClientError("'\(text)' is not a URL such as http://127.0.0.1:8080")
        }
        self.host = host.trimmingCharacters(in: ["[", "]"])
        isSecure = scheme == "https"
        port = url.port ?? (isSecure ? 443 : 80)
        var prefix = url.percentEncodedPath
        while prefix.hasSuffix("/") { prefix.removeLast() }
        pathPrefix = prefix
        self.apiKey = apiKey
        self.authorityFile = authorityFile
    }

    var description: String { "\(isSecure ? "https" : "http")://\(host):\(port)\(pathPrefix)" }
}

/// What went wrong in talking to a server, in words for the terminal.
struct ClientError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

/// A small HTTP/1.1 client for the commands that talk to a running server: one request per
/// connection, bodies streamed both ways.
struct ServerClient: Sendable {
    let address: ServerAddress

    struct Request: Sendable {
        var method = HTTPMethod.GET
        var path: String
        var headers: [(String, String)] = []
        /// The body's length, and what writes it part by part.
        var body: (byteCount: Int, write: @Sendable (BodyWriter) async throws -> Void)?

        static func json(_ method: HTTPMethod, _ path: String, _ value: some Encodable) throws
            -> Request
        {
            let encoder = JSONEncoder()
            encoder.keyEncodingStrategy = .useDefaultKeys
            let data = try encoder.encode(value)
            var request = Request(method: method, path: path)
            request.headers = [("content-type", "application/json")]
            request.body = (data.count, { writer in try await writer.write(Array(data)) })
            return request
        }
    }

    struct BodyWriter: Sendable {
        fileprivate let outbound: NIOAsyncChannelOutboundWriter<HTTPClientRequestPart>

        func write(_ bytes: [UInt8]) async throws {
            try await outbound.write(.body(.byteBuffer(ByteBuffer(bytes: bytes))))
        }
    }

    struct Answer: Sendable {
        let status: Int
        let headers: HTTPHeaders
        let body: [UInt8]

        /// - Throws: `ClientError` with the server's message unless the status is 2xx.
        func checked() throws(ClientError) -> Answer {
            guard (200..<300).contains(status) else { throw ClientError(failure) }
            return self
        }

        /// The server's own words where the body is an error object.
        var failure: String {
            struct Body: Decodable {
                struct Failure: Decodable { let message: String }
                let error: Failure
            }
            let parsed = try? JSONDecoder().decode(Body.self, from: Data(body))
            return parsed?.error.message ?? "the server answered with status \(status)"
        }

        func decoded<Value: Decodable>(_ type: Value.Type) throws(ClientError) -> Value {
            let decoder = JSONDecoder()
            do {
                return try decoder.decode(type, from: Data(body))
            } catch {
                throw ClientError("the server's answer is not what was expected: \(error)")
            }
        }
    }

    /// Sends a request and collects its whole answer.
    func send(_ request: Request) async throws -> Answer {
        try await exchange(request) { status, headers, chunks in
            var body: [UInt8] = []
            while let chunk = try await chunks.next() { body += chunk }
            return Answer(status: status, headers: headers, body: body)
        }
    }

    /// An answer's body as it comes.
    struct Chunks {
        fileprivate var parts: NIOAsyncChannelInboundStream<HTTPClientResponsePart>.AsyncIterator

        mutating func next() async throws -> [UInt8]? {
            while let part = try await parts.next() {
                switch part {
                case .head: continue
                case .body(let buffer): return Array(buffer.readableBytesView)
                case .end: return nil
                }
            }
            throw ClientError("the server closed the connection before its answer was whole")
        }
    }

    /// Sends a request; `read` gets the answer's status, headers and body as it comes.
    func exchange<Result: Sendable>(
        _ request: Request,
        _ read: (Int, HTTPHeaders, inout Chunks) async throws -> Result
    ) async throws -> Result {
        let channel = try await connect()
        do {
            return try await exchange(request, over: channel, read)
        } catch let error as NIOSSLError {
            throw ClientError(address.explanation(of: error))
        }
    }

    private func exchange<Result: Sendable>(
        _ request: Request, over channel: Channel,
        _ read: (Int, HTTPHeaders, inout Chunks) async throws -> Result
    ) async throws -> Result {
        var result: Result?
        do {
            try await channel.executeThenClose { inbound, outbound in
                result = try await converse(request, inbound, outbound, read)
            }
        } catch {
            // Closing what the server has closed already is no failure.
            guard result != nil else { throw error }
        }
        guard let result else {
            throw ClientError("the server closed the connection without an answer")
        }
        return result
    }

    private func converse<Result: Sendable>(
        _ request: Request, _ inbound: NIOAsyncChannelInboundStream<HTTPClientResponsePart>,
        _ outbound: NIOAsyncChannelOutboundWriter<HTTPClientRequestPart>,
        _ read: (Int, HTTPHeaders, inout Chunks) async throws -> Result
    ) async throws -> Result {
        try await outbound.write(.head(head(of: request)))
        // An early answer is read even where the server takes no more: not the rest of a body, and
        // not its end, which a body of known length does not need.
        var writeError: (any Error)?
        do {
            try await request.body?.write(BodyWriter(outbound: outbound))
            try await outbound.write(.end(nil))
        } catch {
            writeError = error
        }
        var parts = inbound.makeAsyncIterator()
        while let part = try await parts.next() {
            guard case .head(let head) = part else { continue }
            if head.status.code < 200 { continue }
            var chunks = Chunks(parts: parts)
            return try await read(Int(head.status.code), head.headers, &chunks)
        }
        throw writeError ?? ClientError("the server closed the connection without an answer")
    }

    private func head(of request: Request) -> HTTPRequestHead {
        var headers = HTTPHeaders(request.headers)
        headers.add(name: "host", value: "\(address.host):\(address.port)")
        headers.add(name: "connection", value: "close")
        headers.add(name: "user-agent", value: "lorry")
        if let key = address.apiKey {
            headers.add(name: "authorization", value: "Bearer \(key)")
        }
        if let body = request.body {
            headers.add(name: "content-length", value: "\(body.byteCount)")
        }
        return HTTPRequestHead(
            version: .http1_1, method: request.method, uri: address.pathPrefix + request.path,
            headers: headers)
    }

    private typealias Channel = NIOAsyncChannel<HTTPClientResponsePart, HTTPClientRequestPart>

    private func connect() async throws -> Channel {
        let address = address
        let tls = try address.isSecure ? address.tlsContext() : nil
        do {
            return try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
                .connectTimeout(.seconds(10))
                .connect(host: address.host, port: address.port) { channel in
                    channel.eventLoop.makeCompletedFuture {
                        if let tls {
                            try channel.pipeline.syncOperations.addHandler(
                                NIOSSLClientHandler(context: tls, serverHostname: address.sni))
                        }
                        try channel.pipeline.syncOperations.addHTTPClientHandlers()
                        return try Channel(wrappingChannelSynchronously: channel)
                    }
                }
        } catch {
            throw ClientError(
                "cannot reach a server at \(address.description): is it running? (\(error))")
        }
    }
}

extension ServerAddress {
    fileprivate func tlsContext() throws -> NIOSSLContext {
        try NIOSSLContext(configuration: tlsConfiguration())
    }

    /// - Throws: `ClientError` where the file with authorities holds none.
    func tlsConfiguration() throws(ClientError) -> TLSConfiguration {
        var configuration = TLSConfiguration.makeClientConfiguration()
        if let authorityFile {
            do {
                let certificates = try NIOSSLCertificate.fromPEMFile(authorityFile)
                configuration.trustRoots = .certificates(certificates)
            } catch {
                throw ClientError("--ca-file: \(authorityFile) holds no certificates (\(error))")
            }
        }
        return configuration
    }

    /// Why there is no TLS connection.
    fileprivate func explanation(of error: NIOSSLError) -> String {
        guard "\(error)".contains("CERTIFICATE_VERIFY_FAILED") else {
            return "no TLS connection to \(description): \(error)"
        }
        return "the certificate of \(description) is not trusted; --ca-file names a file with the "
            + "authority, or the certificate itself, that is"
    }

    /// Nil where the host is an address, which server name indication does not take.
    fileprivate var sni: String? {
        host.contains(":") || host.allSatisfy { $0.isNumber || $0 == "." } ? nil : host
    }
}
