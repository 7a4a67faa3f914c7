import HTTPTypes
import Hummingbird
import LorryMetrics

extension APIRouter {
    mutating func addMetricsRoute(_ services: APIServices) {
        on(.get, "/metrics", .role(.metrics)) { call in
            let format = ExpositionFormat(accept: call.request.headers[.accept])
            let text = services.metrics.registry.exposition(format)
            return .text(text, contentType: format.contentType)
        }
    }
}
