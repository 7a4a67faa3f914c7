import LorryRegistry

/// Registers adapters from folders that clients name, as vLLM's and SGLang's routes do.
struct FolderLoad: Sendable {
    enum Failure: Error {
        /// The name has an adapter, and it was not asked to replace it.
        case nameIsTaken
        /// No folder below an allowed root, which is not told from a folder that does not exist.
        case noFolder
        case refused(RegistryError)
    }

    let services: APIServices
    let principal: Principal

    /// - Parameter replaces: whether a name's new version takes the place of the one it has.
    func add(
        name: String, path: String, replaces: Bool
    ) async throws(Failure) -> AdapterRecord {
        let changes = AdapterChanges(services, for: principal)
        do throws(RegistryError) {
            try changes.checkAddition(name)
        } catch {
            throw .refused(error)
        }
        let known = try? services.registry.record(name: name, tenant: principal.tenant)
        guard replaces || known == nil else { throw .nameIsTaken }
        guard let folder = try? LocalFolder.resolve(path, below: services.allowedRoots) else {
            throw .noFolder
        }
        do throws(RegistryError) {
            let upload = try changes.makeUpload(for: name)
            do throws(RegistryError) {
                try await upload.copyFolder(folder)
            } catch {
                await upload.discard()
                throw error
            }
            return try await changes.add(
                name: name, from: upload,
                expecting: replaces ? .none : Precondition(ifNoneMatch: .any)
            ).record
        } catch {
            // Somebody else was quicker.
            if error.kind == .preconditionFailed { throw .nameIsTaken }
            throw .refused(error)
        }
    }
}
