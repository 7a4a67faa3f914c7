import HTTPTypes
import Synchronization

/// What requests of a tenant run on that name no model: adapters with scales, as llama.cpp's
/// `POST /lora-adapters` sets them. Kept in memory, by name, so that adapters that come and go do
/// not change what was meant.
final class DefaultScales: Sendable {
    private let summands = Mutex<[String: [ModelSelection.Summand]]>([:])

    /// Nil where the tenant has set none.
    subscript(tenant: String) -> [ModelSelection.Summand]? {
        get { summands.withLock { $0[tenant] } }
        set { summands.withLock { $0[tenant] = newValue } }
    }
}

extension APIServices {
    /// The model of a request that names none; nil for the base model.
    ///
    /// - Throws: `APIError` 404 where the tenant's default has an adapter that is gone, or that the
    ///   key may not use; without its name, which may not be the key's to know.
    func defaultModel(for principal: Principal) throws(APIError) -> ServedModel? {
        guard let summands = defaultScales[principal.tenant] else { return nil }
        do {
            return try sumModel(summands, principal)
        } catch {
            guard error.status == .notFound else { throw error }
            throw APIError(
                .notFound,
                "An adapter that POST /lora-adapters has set for requests without 'model' does not "
                    + "exist.", parameter: "model")
        }
    }
}
