// The fields of an adapter's configuration.
extension AdapterSource {
    /// Fields that change nothing when an adapter is served, whatever its method, or that are read
    /// elsewhere.
    private static let commonFields: Set<String> = [
        "auto_mapping", "base_model_name_or_path", "exclude_modules", "inference_mode",
        "layers_pattern", "layers_to_transform", "modules_to_save", "peft_type", "peft_version",
        "revision", "runtime_config", "target_modules", "task_type",
    ]

    /// Refuses what is not understood: an option that Lorry does not know and that is set to anything
    /// but a neutral value could change the answer.
    ///
    /// - Parameters:
    ///   - known: the method's fields that it reads or that change nothing.
    ///   - reasons: why fields that are known are not served.
    func refuseUnknownFields(
        known: Set<String>, reasons: [String: String] = [:]
    ) throws(AdapterError) {
        for (field, value) in configuration.members
        where !Self.commonFields.contains(field) && !known.contains(field) && !value.isNeutral {
            throw unsupported(
                field,
                reasons[field]
                    ?? "is not known, and an option that is not understood could change the answer")
        }
        if let task = present("task_type") {
            guard ["CAUSAL_LM", "FEATURE_EXTRACTION"].contains(task.stringValue) else {
                throw unsupported("task_type", "\(task.stringValue ?? "it") is not CAUSAL_LM")
            }
        }
    }

    func present(_ field: String) -> StrictJSON? {
        configuration[field].flatMap { $0.isNull ? nil : $0 }
    }

    /// False where the field is missing.
    func flag(_ field: String, default other: Bool = false) throws(AdapterError) -> Bool {
        guard let value = present(field) else { return other }
        guard let flag = value.boolValue else { throw bad(field, "is not true or false") }
        return flag
    }

    /// A positive whole number.
    func integer(_ field: String) throws(AdapterError) -> Int? {
        guard let value = present(field) else { return nil }
        guard let number = value.integerValue, number > 0 else {
            throw bad(field, "is not a positive whole number")
        }
        return number
    }

    func number(_ field: String) throws(AdapterError) -> Double? {
        guard let value = present(field) else { return nil }
        guard let number = value.numberValue, number.isFinite else {
            throw bad(field, "is not a number")
        }
        return number
    }

    func string(_ field: String) throws(AdapterError) -> String? {
        guard let value = present(field) else { return nil }
        guard let text = value.stringValue else { throw bad(field, "is not a string") }
        return text
    }

    /// A scaling factor as a Float.
    func scale(_ field: String, _ value: Double) throws(AdapterError) -> Float {
        let scale = Float(value)
        guard scale.isFinite else { throw bad(field, "gives a scale that is too large") }
        return scale
    }
}

extension StrictJSON {
    /// Null, false, or empty: what an option that is not used looks like.
    var isNeutral: Bool {
        switch self {
        case .null, .bool(false): true
        case .string(let text): text.isEmpty
        case .array(let values): values.isEmpty
        case .object(let object): object.members.isEmpty
        default: false
        }
    }
}
