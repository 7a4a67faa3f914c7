import LorryEngine
import LorryRegistry

/// The model that a request runs on: the base model, or an adapter's version.
struct ServedModel: Sendable {
    /// The name that answers carry: what the client asked for, in its full form.
    let name: String
    /// Nil for the base model.
    let adapter: AdapterReference?
    let text: TextCodec

    /// What `x-lorry-adapter-version` says.
    var versionHeader: String { adapter?.id.digest ?? "base" }
    /// For metrics: the adapter's name without version; empty for the base model.
    var adapterName: String { adapter?.name ?? "" }
}
