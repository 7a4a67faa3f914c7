/// The files an adapter may consist of, and what becomes of every other name.
package enum AdapterFile {
    package static let configuration = "adapter_config.json"
    /// The weights, as peft and as AdapterHub's library name them. An adapter has one.
    package static let weights = ["adapter_model.safetensors", "adapter.safetensors"]

    /// Kept in the store. All but README.md count towards the version.
    package static let stored: Set<String> = Set(weights).union([
        configuration, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "chat_template.jinja", "README.md",
    ])

    /// Left out of the version: a corrected text is no other adapter.
    static let unversioned: Set<String> = ["README.md"]

    /// Left behind by trainers and repositories, of no use for serving; named in the outcome.
    static let ignored: Set<String> = [
        "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", ".gitattributes", ".gitignore",
        ".DS_Store", "training_args.json", "trainer_state.json", "all_results.json",
        "train_results.json", "eval_results.json", "generation_config.json", "config.json",
        "tokenizer.model", "vocab.json", "merges.txt", "vocab.txt",
    ]

    /// Pickles of training state: never weights to serve. In a local folder they stay where they
    /// are; in an upload they are refused like any pickle.
    static let trainingState: Set<String> = [
        "training_args.bin", "optimizer.pt", "scheduler.pt", "scaler.pt", "rng_state.pth",
    ]

    private static let pickleSuffixes = [
        ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib",
    ]
    private static let otherWeightSuffixes = [
        ".safetensors", ".safetensors.index.json", ".gguf", ".ggml", ".h5", ".hdf5", ".onnx",
        ".npz", ".npy", ".msgpack", ".mlmodel", ".zip",
    ]

    enum Fate: Equatable { case store, ignore, unknown }

    /// - Throws: `unsupported` for weights in another format.
    static func fate(of name: String) throws(RegistryError) -> Fate {
        if stored.contains(name) { return .store }
        let lower = name.lowercased()
        if pickleSuffixes.contains(where: lower.hasSuffix) {
            throw RegistryError(
                .unsupported,
                "\(quoted(name)) is a pickle, which can run code when it is read: "
                    + "save the adapter as safetensors and leave this file out")
        }
        if otherWeightSuffixes.contains(where: lower.hasSuffix) {
            throw RegistryError(
                .unsupported,
                "\(quoted(name)) holds weights that would not be served: only "
                    + "\(weights.joined(separator: " or ")) is read")
        }
        // macOS adds a `._` companion to each file it archives.
        return ignored.contains(name) || name.hasPrefix("._") ? .ignore : .unknown
    }

    /// A client that sends a file wants it served, so an upload refuses what is not; in a local
    /// folder such a file stays where it is.
    static func unknownName(_ name: String) -> RegistryError {
        RegistryError(
            .invalid,
            "\(quoted(name)) is not a file of an adapter; taken are "
                + stored.sorted().joined(separator: ", "))
    }

    static func maxByteCount(of name: String, _ limits: UploadLimits) -> Int {
        switch name {
        case _ where weights.contains(name): limits.maxWeightsByteCount
        case configuration: limits.maxConfigurationByteCount
        case "tokenizer.json": limits.maxTokenizerByteCount
        default: limits.maxOtherFileByteCount
        }
    }
}
