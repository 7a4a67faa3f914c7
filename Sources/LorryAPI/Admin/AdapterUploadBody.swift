import HTTPTypes
import Hummingbird
import LorryRegistry
import NIOCore

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
        var budget = try ByteBudget(request, limit: services.limits.uploadByteCount)
        switch self {
        case .archive:
            for try await buffer in request.body {
                try budget.take(buffer.readableBytes)
                try await upload.writeArchive(Array(buffer.readableBytesView))
            }
        case .multipart(let contentType):
            var parser = try MultipartParser(contentType: contentType)
            for try await buffer in request.body {
                try budget.take(buffer.readableBytes)
                for event in try parser.push(buffer.readableBytesView) {
                    try await Self.apply(event, to: upload)
                }
            }
            try parser.finish()
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

    /// What a body may still bring.
    private struct ByteBudget {
        private let limit: Int
        private var left: Int

        init(_ request: Request, limit: Int) throws(APIError) {
            self.limit = limit
            left = limit
            if let text = request.headers[.contentLength], let length = Int(text), length > limit {
                throw Request.tooLarge(limit)
            }
        }

        mutating func take(_ count: Int) throws(APIError) {
            left -= count
            guard left >= 0 else { throw Request.tooLarge(limit) }
        }
    }
}
