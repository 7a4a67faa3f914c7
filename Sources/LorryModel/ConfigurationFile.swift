import Foundation

/// A JSON object of a model folder, read field by field with errors that name file and field.
struct ConfigurationFile {
    let name: String
    let object: StrictJSON.Object

    /// Larger configuration files than this are refused.
    static let maximumByteCount = 16 << 20

    init(name: String, object: StrictJSON.Object) {
        self.name = name
        self.object = object
    }

    init(_ url: URL) throws(ModelError) {
        let file: MappedFile
        do { file = try MappedFile(path: url.path) } catch { throw ModelError("\(error)") }
        guard file.bytes.count <= Self.maximumByteCount else {
            throw ModelError("\(url.path): larger than \(Self.maximumByteCount) bytes")
        }
        let value: StrictJSON
        do { value = try StrictJSON(parsing: file.bytes) } catch {
            throw ModelError("\(url.path): \(error)")
        }
        guard let object = value.objectValue else {
            throw ModelError("\(url.path): is not a JSON object")
        }
        self.init(name: url.path, object: object)
    }

    subscript(field: String) -> StrictJSON? { object[field] }

    func bad(_ field: String, _ reason: String) -> ModelError {
        ModelError("\(name): \(field): \(reason)")
    }

    /// The field's value, or nil where it is missing or null.
    private func present(_ field: String) -> StrictJSON? {
        object[field].flatMap { $0.isNull ? nil : $0 }
    }

    func optionalSize(_ field: String) throws(ModelError) -> Int? {
        guard let value = present(field) else { return nil }
        guard let size = value.integerValue, size > 0, size <= Int(Int32.max) else {
            throw bad(field, "is not a positive whole number")
        }
        return size
    }

    func size(_ field: String) throws(ModelError) -> Int {
        guard let size = try optionalSize(field) else { throw bad(field, "is missing") }
        return size
    }

    func number(_ field: String) throws(ModelError) -> Double? {
        guard let value = present(field) else { return nil }
        guard let number = value.numberValue, number.isFinite else {
            throw bad(field, "is not a number")
        }
        return number
    }

    func positiveNumber(_ field: String) throws(ModelError) -> Double {
        guard let number = try number(field) else { throw bad(field, "is missing") }
        guard number > 0 else { throw bad(field, "must be above 0") }
        return number
    }

    func flag(_ field: String) throws(ModelError) -> Bool? {
        guard let value = present(field) else { return nil }
        guard let flag = value.boolValue else { throw bad(field, "is not true or false") }
        return flag
    }

    func string(_ field: String) throws(ModelError) -> String? {
        guard let value = present(field) else { return nil }
        guard let string = value.stringValue else { throw bad(field, "is not a string") }
        return string
    }

    /// One token id or a list of them.
    func tokenIDs(_ field: String) throws(ModelError) -> Set<Int32> {
        guard let value = present(field) else { return [] }
        var ids: Set<Int32> = []
        for entry in value.arrayValue ?? [value] {
            guard let id = entry.integerValue.flatMap(Int32.init(exactly:)) else {
                throw bad(field, "is not a token id or a list of them")
            }
            ids.insert(id)
        }
        return ids
    }
}
