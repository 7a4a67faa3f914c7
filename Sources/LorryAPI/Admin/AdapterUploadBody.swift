import HTTPTypes
import Hummingbird
import LorryRegistry

/// The ways in which an adapter's files may arrive.
enum AdapterUploadBody {
    case archive
    case multipart(contentType: String)
    case folder

    private static let archives: Set = [
        "application/x-tar", "application/tar", "application/x-gtar", "application/gzip",
        "application/x-gzip", "application/tar+gzip", "application/x-tar+gzip",
        "application/x-compressed-tar",
    ]

    /// - Throws: `APIError` 415 for another content type.
    init(_ request: Request) throws(APIError) {
        let type = request.contentType
        switch type {
        case "multipart/form-data":
            self = .multipart(contentType: request.headers[.contentType] ?? "")
        case "application/json": self = .folder
        case let type? where Self.archives.contains(type): self = .archive
        default:
            throw APIError(
                .unsupportedMediaType,
                "Unsupported content type '\(type ?? "")': send application/x-tar, "
                    + "application/gzip, multipart/form-data or application/json.")
        }
    }

    /// Streams the body into `upload`.
    func write(_ request: Request, to upload: AdapterUpload, _ services: APIServices) async throws {
        switch self {
        case .archive:
            try await Self.forEachChunk(of: request, services) { bytes in
                try await upload.writeArchive(bytes)
            }
        case .multipart(let contentType):
            var parser = try Self.checked { () throws(MultipartParser.Failure) in
                try MultipartParser(contentType: contentType)
            }
            try await Self.forEachChunk(of: request, services) { bytes in
                let events = try Self.checked { () throws(MultipartParser.Failure) in
                    try parser.push(bytes)
                }
                for event in events { try await Self.apply(event, to: upload) }
            }
            try Self.checked { () throws(MultipartParser.Failure) in try parser.finish() }
        case .folder:
            let fields = try await request.jsonObject(byteLimit: services.limits.jsonByteCount)
            guard let path = try fields.string("path") else {
                throw fields.fail("path", "is required.")
            }
            let folder = try LocalFolder.resolve(path, below: services.allowedRoots)
            try await upload.copyFolder(folder)
        }
    }

    /// A part's file is named by its `filename`, else by its `name`.
    private static func apply(
        _ event: MultipartParser.Event, to upload: AdapterUpload
    ) async throws(RegistryError) {
        switch event {
        case .part(let name, let fileName): try await upload.beginFile(fileName ?? name)
        case .content(let bytes): try await upload.writeFile(bytes)
        case .partEnd: try await upload.endFile()
        }
    }

    private static func checked<Result>(
        _ work: () throws(MultipartParser.Failure) -> Result
    ) throws(APIError) -> Result {
        do {
            return try work()
        } catch {
            throw APIError(.badRequest, "\(error)")
        }
    }

    private static func forEachChunk(
        of request: Request, _ services: APIServices, _ body: ([UInt8]) async throws -> Void
    ) async throws {
        let limit = services.limits.uploadByteCount
        if let text = request.headers[.contentLength], let length = Int(text), length > limit {
            throw Request.tooLarge(limit)
        }
        var count = 0
        for try await buffer in request.body {
            count += buffer.readableBytes
            guard count <= limit else { throw Request.tooLarge(limit) }
            try await body(Array(buffer.readableBytesView))
        }
    }
}
