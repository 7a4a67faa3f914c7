import LorryModel

/// Reads the members of a request's JSON object by name; a member of the wrong kind or out of its
/// range is an `APIError` that names it. A null counts as absent.
struct FieldReader {
    let object: StrictJSON.Object
    /// Where the object stands in the request: `stream_options.` for a member of that object.
    var path = ""

    func value(_ key: String) -> StrictJSON? {
        guard let value = object[key], !value.isNull else { return nil }
        return value
    }

    func fail(_ key: String, _ reason: String) -> APIError {
        .invalid(path + key, "\(path)\(key) \(reason)")
    }

    func string(_ key: String) throws(APIError) -> String? {
        guard let value = value(key) else { return nil }
        guard let text = value.stringValue else { throw fail(key, "must be a string.") }
        return text
    }

    func bool(_ key: String) throws(APIError) -> Bool? {
        guard let value = value(key) else { return nil }
        guard let flag = value.boolValue else { throw fail(key, "must be true or false.") }
        return flag
    }

    func integer(_ key: String) throws(APIError) -> Int? {
        guard let value = value(key) else { return nil }
        guard let number = value.integerValue else {
            throw fail(key, "must be an integer of at most 64 bits.")
        }
        return number
    }

    func integer(
        _ key: String, in range: ClosedRange<Int>, _ requirement: String
    ) throws(APIError) -> Int? {
        guard let number = try integer(key) else { return nil }
        guard range.contains(number) else {
            throw fail(key, "must be \(requirement), got \(number).")
        }
        return number
    }

    /// A finite number for which `isAllowed` holds; `requirement` says in words what that is.
    func number(
        _ key: String, _ requirement: String, _ isAllowed: (Double) -> Bool
    ) throws(APIError) -> Float? {
        guard let value = value(key) else { return nil }
        guard let number = value.numberValue else { throw fail(key, "must be a number.") }
        guard Float(number).isFinite, isAllowed(number) else {
            throw fail(key, "must be \(requirement), got \(number).")
        }
        return Float(number)
    }

    func array(_ key: String) throws(APIError) -> [StrictJSON]? {
        guard let value = value(key) else { return nil }
        guard let values = value.arrayValue else { throw fail(key, "must be an array.") }
        return values
    }

    func fields(_ key: String) throws(APIError) -> FieldReader? {
        guard let value = value(key) else { return nil }
        guard let object = value.objectValue else { throw fail(key, "must be an object.") }
        return FieldReader(object: object, path: "\(path)\(key).")
    }

    /// Refuses fields that would change the answer and that are not served: to ignore them silently
    /// would give a wrong answer. An empty text or list passes, and where `zeroIsOff` also 0 and
    /// false.
    func refuse(_ names: [String], zeroIsOff: Bool = false) throws(APIError) {
        for name in names {
            guard let value = value(name) else { continue }
            if value.arrayValue?.isEmpty == true || value.stringValue?.isEmpty == true { continue }
            if zeroIsOff, value.boolValue == false || value.numberValue == 0 { continue }
            throw fail(name, "is not supported.")
        }
    }

    func tokenIDs(_ key: String, vocabularySize: Int) throws(APIError) -> [Int32]? {
        guard let values = try array(key) else { return nil }
        return try tokenIDs(values, key, vocabularySize: vocabularySize)
    }

    func tokenIDs(
        _ values: [StrictJSON], _ key: String, vocabularySize: Int
    ) throws(APIError) -> [Int32] {
        var ids: [Int32] = []
        ids.reserveCapacity(values.count)
        for value in values {
            guard case .integer(let id) = value else {
                throw fail(key, "must hold token ids, which are integers.")
            }
            guard id >= 0, id < vocabularySize, let token = Int32(exactly: id) else {
                throw fail(
                    key,
                    "holds token id \(id), which is outside the vocabulary of "
                        + "\(vocabularySize) tokens.")
            }
            ids.append(token)
        }
        return ids
    }
}
