import Foundation
import HTTPTypes
import Hummingbird
import LorryRegistry

// How the registry's records stand in answers.

extension JSON {
    init(_ record: AdapterRecord, isResident: Bool) {
        let state = record.state == .ready && isResident ? AdapterState.resident : record.state
        self = [
            "name": .string(record.name), "version": .string(record.version.digest),
            "method": .string(record.method), "rank": .integer(record.rank),
            "targets": .array(record.targets.map { .string($0) }),
            "byteCount": .integer(record.byteCount),
            "parameterCount": .integer(record.parameterCount),
            "storedByteCount": .integer(record.storedByteCount),
            "tenant": .string(record.tenant), "created": .time(record.created),
            "state": .string(state.rawValue), "pinned": .bool(record.pinned),
            "aliases": .array(record.aliases.map { .string($0) }),
        ]
    }

    init(_ alias: AdapterAlias) {
        self = [
            "name": .string(alias.name), "adapter": .string(alias.adapter),
            "version": .string(alias.version.digest), "fixed": .bool(alias.isFixed),
            "tenant": .string(alias.tenant), "created": .time(alias.created),
        ]
    }

    init(_ upload: UploadStatus) {
        self = [
            "id": .integer(upload.id), "name": .optional(upload.key?.name),
            "tenant": .optional(upload.key?.tenant), "started": .time(upload.started),
            "phase": .string(upload.phase.rawValue),
            "receivedByteCount": .integer(upload.receivedByteCount),
            "byteCount": .optional(upload.byteCount),
        ]
    }

    init(_ version: AdapterVersion) {
        self = [
            "version": .string(version.version.digest), "method": .string(version.method),
            "rank": .integer(version.rank),
            "targets": .array(version.targets.map { .string($0) }),
            "byteCount": .integer(version.byteCount),
            "storedByteCount": .integer(version.storedByteCount),
            "created": .time(version.created), "current": .bool(version.current),
            "damaged": .bool(version.damaged),
        ]
    }

    init(_ event: RegistryEvent) {
        self = [
            "id": .integer(Int(event.id)), "time": .time(event.time),
            "actor": .string(event.actor), "tenant": .string(event.tenant),
            "action": .string(event.action.rawValue), "name": .string(event.name),
            "version": .optional(event.version?.digest), "detail": .string(event.detail),
        ]
    }

    /// RFC 3339, in UTC, with milliseconds.
    static func time(_ date: Date) -> JSON {
        .string(date.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true)))
    }
}

extension AdapterAlias {
    var entityTag: String { "\"\(target)\"" }
}

extension AdapterRecord {
    var entityTag: String { "\"\(version.digest)\"" }
}

extension Precondition {
    /// `If-Match` and `If-None-Match` of a request. A weak tag never matches in `If-Match`.
    init(_ headers: HTTPFields) {
        self.init(
            ifMatch: headers[.ifMatch].map { Self.tags($0, takesWeak: false) },
            ifNoneMatch: headers[.ifNoneMatch].map { Self.tags($0, takesWeak: true) })
    }

    private static func tags(_ text: String, takesWeak: Bool) -> Tags {
        var tags: Set<String> = []
        for element in text.split(separator: ",") {
            var tag = element.trimmingSpaces
            if tag == "*" { return .any }
            if tag.hasPrefix("W/") {
                guard takesWeak else { continue }
                tag.removeFirst(2)
            }
            tags.insert(tag.trimmingCharacters(in: ["\""]))
        }
        return .tags(tags)
    }
}
